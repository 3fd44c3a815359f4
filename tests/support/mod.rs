//! What the test targets `it` and `campaigns` share: servers, databases, the program, and the simulation from seeds.

pub mod cluster;
pub mod database;
pub mod mirror;
pub mod program;
pub mod receiver;
pub mod scene;
pub mod simulation;
pub mod statement_proxy;
pub mod wire;
pub mod world;
