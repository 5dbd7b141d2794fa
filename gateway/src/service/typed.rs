//! Records as the typed messages of the contract: `Grid`, `Case`, `Camera`. What is said beside a record is set in
//! answers and taken out of requests.

use bytes::Bytes;
use guantong_proto::rules;
use guantong_proto::v1;
use prost::Message;

use super::view;
use crate::record::raw;

/// A kind with a message and services of its own.
pub(super) trait Typed: Message + Default + Send + 'static {
    /// The kind's name.
    const KIND: &'static str;

    /// The record's name.
    fn name(&self) -> &str;

    /// The etag that the author of a write saw; empty: none.
    fn etag(&self) -> &str;

    /// The code that is the record's only possible id, where the kind has one.
    fn code(&self) -> Option<&str>;

    /// The numbers of other systems.
    fn external_refs(&mut self) -> &mut Vec<v1::ExternalRef>;

    /// Sets what is said beside the fields.
    fn say(&mut self, record: &v1::Record, conflicting: Vec<String>, update_time: prost_types::Timestamp);
}

macro_rules! typed {
    ($message:ident, $kind:literal, $code:expr) => {
        impl Typed for v1::$message {
            const KIND: &'static str = $kind;

            fn name(&self) -> &str {
                &self.name
            }

            fn etag(&self) -> &str {
                &self.etag
            }

            fn code(&self) -> Option<&str> {
                let code: fn(&Self) -> Option<&str> = $code;
                code(self)
            }

            fn external_refs(&mut self) -> &mut Vec<v1::ExternalRef> {
                &mut self.external_refs
            }

            fn say(
                &mut self,
                record: &v1::Record,
                conflicting: Vec<String>,
                update_time: prost_types::Timestamp,
            ) {
                self.name.clone_from(&record.name);
                self.etag.clone_from(&record.etag);
                self.conflicting_fields = conflicting;
                self.update_time = Some(update_time);
            }
        }
    };
}

typed!(Grid, "grid", |grid| grid.grid_code.as_deref());
typed!(Case, "case", |_| None);
typed!(Camera, "camera", |camera| camera.device_id.as_deref());

/// A record as its message.
pub(super) fn shown<T: Typed>(record: &v1::Record, updated_ms: u64) -> T {
    let mut message = T::decode(record.fields.clone()).unwrap_or_else(|_| readable(&record.fields));
    let kind = rules::Kind::by_name(T::KIND);
    let name = |number: &u32| kind.and_then(|kind| kind.field(*number)).map(|field| field.name.to_owned());
    let conflicting = record.conflicting_fields.iter().filter_map(name).collect();
    message.say(record, conflicting, view::timestamp(updated_ms));
    message
}

/// What can be read of a message: links carry bytes that nobody here has read, and one bad field must not hide a
/// record.
fn readable<T: Typed>(fields: &Bytes) -> T {
    let mut message = T::default();
    for (_, value) in raw::split(fields).unwrap_or_default() {
        if T::decode(value.clone()).is_ok() {
            // It has just been read.
            let _ = message.merge(value);
        }
    }
    message
}

/// The fields of a message, encoded. The numbers of other systems get their ids where they have none.
pub(super) fn fields<T: Typed>(mut message: T) -> Bytes {
    for reference in message.external_refs().iter_mut().filter(|r| r.id.is_empty()) {
        reference.id = format!("{}:{}", reference.system, reference.number);
    }
    message.encode_to_vec().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_field_does_not_hide_a_record() {
        let case =
            v1::Case { title: Some("标题".into()), category: Some("land".into()), ..Default::default() };
        let mut bytes = case.encode_to_vec();
        // The lifecycle, field 18: a message whose first field is cut short.
        bytes.extend([0x92, 0x01, 1, 0x08]);
        let record = v1::Record { name: "n".into(), fields: bytes.into(), ..Default::default() };
        let case: v1::Case = shown(&record, 1_000);
        assert_eq!((case.title(), case.category(), case.lifecycle.is_none()), ("标题", "land", true));
        assert_eq!(case.update_time.unwrap().seconds, 1);
    }
}
