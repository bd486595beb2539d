//! Development only: real-server fixtures, fake databases, the fake clock, the simulator.

pub mod servers;
