//! The contract of Guantong: messages and services of `guantong.v1`, and the rules of every field.
//!
//! The `.proto` files are the one source: messages, services and rules are generated from them when
//! the crate is built, without `protoc`. Nothing here may decide anything: no validation, no
//! conversion, no defaults of its own. Adding a kind or a field is an edit of a `.proto` file only.

pub mod codes;
pub mod rules;

/// The messages of package `guantong.v1` and, with feature `service`, its clients and servers.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/guantong.v1.rs"));
}

/// An encoded `google.protobuf.FileDescriptorSet` of the whole contract with its imports, options
/// and comments: for gRPC reflection, for reading labels at run time, for the breaking-change check.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
