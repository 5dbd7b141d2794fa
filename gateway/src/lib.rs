//! The engine.
pub mod division;
