//! Every decoder that faces the network or a file, given what nobody would send. Besides not failing, each must stay
//! within the memory and time of the runner, and what it reads must survive being written again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

mod bundles;
mod calls;
mod exchange;
mod files;
mod office;
mod runner;
mod trust;
