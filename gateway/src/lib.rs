//! The exchange engine of Guantong.
//!
//! The pure core decides everything and does nothing: no clock, no randomness, no input or output; `store` keeps what
//! it decides, `engine` runs the two together, and `service` offers them over gRPC. Imports point one way: see
//! ARCHITECTURE.md.

pub mod access;
pub mod aggregate;
pub mod audit;
pub mod bundle;
pub mod calendar;
pub mod casework;
pub mod claiming;
pub mod comparing;
pub mod completeness;
pub mod division;
pub mod duplicates;
pub mod erasure;
pub mod facet;
pub mod grant;
pub mod ingest;
pub mod invitation;
pub mod measure;
pub mod merge;
pub mod outgoing;
pub mod pace;
pub mod peering;
pub mod period;
pub mod proof;
pub mod record;
pub mod release;
pub mod schema;
pub mod session;
pub mod stamp;
pub mod step;
pub mod threshold;
pub mod whereabouts;

#[cfg(feature = "store")]
pub mod engine;
#[cfg(feature = "store")]
pub mod store;

#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "service")]
pub mod tabular;
