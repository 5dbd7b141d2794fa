//! The demonstration: a county, or any other division, with all its nodes on this machine.

pub mod tree;
