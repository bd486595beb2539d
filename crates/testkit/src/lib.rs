//! Development only: real-server fixtures, fake databases, the fake clock, the simulator.

pub mod servers;
#[cfg(feature = "simulator")]
pub mod simulator;
