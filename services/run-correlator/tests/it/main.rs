//! run-correlator.
