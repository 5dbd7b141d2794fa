//! What a peer is sent of a stored record.

use bytes::Bytes;
use guantong_proto::v1;

use crate::division::Division;
use crate::ingest::topology::Role;
use crate::proof::{self, Pair, Sum};
use crate::record::audience::Audience;
use crate::record::codec::{self, CodecError};
use crate::record::{Record, RecordName};
use crate::release::{self, Concern, Direction};
use crate::schema::Schema;

/// A node and the peer that it sends to.
#[derive(Clone, Copy)]
pub struct Route<'a> {
    /// The rules of all fields.
    pub schema: &'a Schema,
    /// The node's own division.
    pub own: Division,
    /// What the peer is to the node.
    pub role: Role,
    /// The peer's division.
    pub peer: Division,
}

impl Route<'_> {
    /// The part of a record that crosses to the peer; `None`: the record does not concern it, or nothing crosses.
    pub fn projection(self, name: &RecordName, record: &Record) -> Option<Record> {
        let kind = self.schema.kind(name.kind);
        let audience = Audience::of(kind, name.home, record);
        if !audience.concerns(self.peer) {
            return None;
        }
        let to = match self.role {
            Role::Parent => Direction::Up(self.peer),
            Role::Child | Role::Partner => Direction::Down,
        };
        let sealed = release::is_sealed(kind, name.home, record);
        let concern = Concern { home: name.home, audience: &audience, sealed };
        Some(release::project(kind, concern, self.own, to, record)).filter(|p| !p.is_empty())
    }

    /// The record as it goes into a batch: the stored bytes as they are where release cuts nothing.
    pub fn batch_record(
        self,
        name: &RecordName,
        state: &Bytes,
        traceparent: Option<&str>,
        fresh: bool,
    ) -> Result<Option<v1::BatchRecord>, CodecError> {
        let record = codec::decode(state.clone())?;
        let Some(projection) = self.projection(name, &record) else { return Ok(None) };
        let whole = record.purged().is_empty() && projection.fields().len() == record.fields().len();
        let state = if whole { state.clone() } else { codec::encode(&projection) };
        let name = name.display(self.schema).to_string();
        Ok(Some(v1::BatchRecord { name, state, traceparent: traceparent.map(Into::into), fresh }))
    }

    /// The two ends of the link.
    pub fn pair(self) -> Pair {
        match self.role {
            Role::Parent => Pair { child: self.own, parent: self.peer },
            Role::Child | Role::Partner => Pair { child: self.peer, parent: self.own },
        }
    }

    /// Hash over what crosses upward of a record: the same at both ends of a link when they are equal. `None`: nothing of
    /// it does.
    pub fn fingerprint(self, name: &RecordName, record: &Record) -> Option<u64> {
        let shared = proof::shared(self.schema, self.pair(), name, record);
        let sum = shared.iter().fold(Sum::ZERO, |all, (_, sum)| all + *sum);
        (!shared.is_empty()).then_some(sum.0 as u64)
    }
}
