//! The crew's files: what is read, and what is said about what can not be.

mod bad_crews;
mod bad_models;
mod bad_scopes;
mod bad_teams;
mod bad_yaml;
mod good;
mod mutations;
mod project;
mod published;
mod routes;
