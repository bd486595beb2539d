//! Development only: real-server fixtures, a proxy that breaks links, fake databases, the fake clock, the simulator.

pub mod proxy;
pub mod servers;
#[cfg(feature = "simulator")]
pub mod simulator;
