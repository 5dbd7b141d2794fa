//! How codes stand in a line: divisions with 12 digits, reasons by the contract's names.

use guantong_proto::v1::{GoodbyeReason, Recognition, RefusalReason};
use serde::Serializer;

use crate::division::Division;

pub(super) fn code<S: Serializer>(division: &Division, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(division)
}

pub(super) fn recognition<S: Serializer>(
    recognition: &Recognition,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(recognition.as_str_name())
}

pub(super) fn goodbye<S: Serializer>(reason: &GoodbyeReason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.as_str_name())
}

pub(super) fn reason<S: Serializer>(reason: &RefusalReason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.as_str_name())
}
