//! Identity, permissions and tokens, against a real nats-server.

mod server;
