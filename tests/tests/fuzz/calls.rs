//! What callers send: any bytes as the request of any method, and page tokens that nobody gave out. Whatever comes, the
//! caller gets an answer that says what to do; an error that only we could do something about is a failure.

use std::collections::BTreeMap;

use bytes::Bytes;
use guantong_proto::v1;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value};
use tonic::{Code, Status};

use super::exchange;
use super::office::{CHILD, HOME, Office, callers};
use super::runner::{fuzz, turn};

/// Codes that say that we are at fault, or that nothing is there.
const OURS: [Code; 5] =
    [Code::Unknown, Code::Internal, Code::DataLoss, Code::Unavailable, Code::Unimplemented];

fn judge(method: &MethodDescriptor, answer: &Result<Bytes, Status>) {
    match answer {
        Ok(bytes) => {
            DynamicMessage::decode(method.output(), bytes.clone()).unwrap();
        }
        Err(status) => {
            // The library's own answer to what is no message at all.
            let is_none = status.message().starts_with("failed to decode Protobuf message");
            assert!(is_none || !OURS.contains(&status.code()), "{}: {status:?}", method.full_name());
            assert!(!status.message().is_empty(), "{}", method.full_name());
        }
    }
}

/// A request for a method; for a stream of them, several.
fn request(method: &MethodDescriptor) -> Vec<u8> {
    if method.name() == "Link" {
        // What a parent alone says ends the link.
        let said = |frame: &v1::Frame| !matches!(frame.kind, Some(v1::frame::Kind::Welcome(_)));
        let frames = exchange::frames_of(CHILD).into_iter().filter(said);
        let requests = frames.map(|frame| v1::LinkRequest { frame: Some(frame) });
        return requests.flat_map(|request| request.encode_length_delimited_to_vec()).collect();
    }
    let message = sample(method.name(), &method.input(), 4);
    if method.is_client_streaming() {
        return message.encode_length_delimited_to_vec();
    }
    message.encode_to_vec()
}

/// The first byte chooses the method, the second who calls it; the rest is the request.
#[test]
fn calls() {
    let turn = turn();
    let office = Office::open();
    let (methods, callers) = (office.methods(), callers());
    let mut samples = Vec::new();
    let mut succeeded = 0;
    for (at, method) in methods.iter().enumerate() {
        let message = request(method);
        let answer = office.call(method, callers[0].clone(), message.clone().into());
        judge(method, &answer);
        succeeded += usize::from(answer.is_ok());
        for caller in 0..callers.len() {
            samples.push([&[at as u8, caller as u8], &*message].concat());
        }
    }
    let link = methods.iter().find(|method| method.name() == "Link").unwrap();
    let greeted = office.call(link, callers[2].clone(), request(link).into()).unwrap();
    let frame = v1::LinkResponse::decode(greeted).unwrap().frame.unwrap();
    assert!(matches!(frame.kind, Some(v1::frame::Kind::Welcome(_))), "a node below is linked: {frame:?}");
    assert!(succeeded * 3 > methods.len(), "{succeeded} samples of {} are good ones", methods.len());
    fuzz(&turn, "calls", &samples, |input| {
        let [method, caller, message @ ..] = input else { return };
        let method = &methods[usize::from(*method) % methods.len()];
        let caller = callers[usize::from(*caller) % callers.len()].clone();
        judge(method, &office.call(method, caller, Bytes::copy_from_slice(message)));
    });
}

/// A request in which every field says something that could be meant.
fn sample(method: &str, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields().filter(|field| !field.is_map()) {
        let is_deep = matches!(field.kind(), Kind::Message(_)) && depth == 0;
        if is_deep || matches!(field.name(), "page_token" | "etag" | "read_token" | "request_id") {
            continue;
        }
        let value = value(method, &field, depth);
        let value = if field.is_list() { Value::List(vec![value]) } else { value };
        message.set_field(&field, value);
    }
    message
}

fn value(method: &str, field: &FieldDescriptor, depth: usize) -> Value {
    match field.kind() {
        Kind::Bool => Value::Bool(true),
        Kind::Double => Value::F64(44.5),
        Kind::Float => Value::F32(44.5),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(1),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(1),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(1),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(1),
        Kind::Bytes => Value::Bytes(Bytes::from_static(b"\x0a\x01x")),
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::Message(inner) if inner.full_name() == "google.protobuf.FieldMask" => {
            let mut mask = DynamicMessage::new(inner);
            mask.set_field_by_name("paths", Value::List(vec![Value::String("title".into())]));
            Value::Message(mask)
        }
        Kind::Message(inner) => Value::Message(sample(method, &inner, depth - 1)),
        Kind::String => Value::String(text(method, field.name())),
    }
}

fn text(method: &str, field: &str) -> String {
    let named = [
        ("Subscription", "subscriptions/feed-1".to_owned()),
        ("Changes", "subscriptions/feed-1".to_owned()),
        ("Grant", "grants/water".to_owned()),
        ("Invitation", "invitations/00000000000000ff".to_owned()),
        ("Report", format!("divisions/{HOME}/reports/2026-01-1")),
        ("Grid", format!("divisions/{HOME}/grids/220822101000001")),
        ("Camera", format!("divisions/{HOME}/cameras/22082210101320000001")),
    ];
    let text = match field {
        "name" | "record" | "grid" | "case" | "camera" => {
            let found = named.into_iter().find(|(of, _)| method.contains(of));
            return found.map_or_else(|| format!("divisions/{HOME}/cases/1"), |(_, name)| name);
        }
        "subscription_id" => "feed-9",
        "parent" | "peer" => return format!("divisions/{HOME}"),
        "division" | "divisions" | "scope" | "to_division" | "acting_division" | "holder" | "writer" => HOME,
        "kind" | "kinds" => "case",
        "period" => "2026-03",
        "measure" | "measures" => "cases_received",
        "dimension" | "event" => "",
        "unit" | "units" | "to_unit" => "court",
        "reason" => "beyond_means",
        "category" => "neighbours",
        _ => "x",
    };
    text.to_owned()
}

/// Lists, each with a request for its first entry. In the lists of the second sort nothing is.
fn lists() -> (BTreeMap<&'static str, Vec<u8>>, [&'static str; 3]) {
    let (parent, page_size) = (format!("divisions/{HOME}"), 1);
    let empty = ["ListQuarantine", "ListAuditCheckpoints", "ListDuplicates"];
    let of_records = |kind: &str| v1::ListRecordsRequest {
        parent: parent.clone(),
        kind: kind.into(),
        page_size,
        ..Default::default()
    };
    let lists = [
        ("ListRecords", of_records("case").encode_to_vec()),
        (
            "ListGrids",
            v1::ListGridsRequest { parent: parent.clone(), page_size, ..Default::default() }.encode_to_vec(),
        ),
        (
            "ListCases",
            v1::ListCasesRequest { parent: parent.clone(), page_size, ..Default::default() }.encode_to_vec(),
        ),
        (
            "ListCameras",
            v1::ListCamerasRequest { parent: parent.clone(), page_size, ..Default::default() }
                .encode_to_vec(),
        ),
        (
            "ListConflicts",
            v1::ListConflictsRequest { parent: parent.clone(), page_size, ..Default::default() }
                .encode_to_vec(),
        ),
        (
            "ListDuplicates",
            v1::ListDuplicatesRequest {
                parent: parent.clone(),
                kind: "case".into(),
                page_size,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        ("ListReports", v1::ListReportsRequest { parent, page_size, ..Default::default() }.encode_to_vec()),
        ("ListGrants", v1::ListGrantsRequest { page_size, ..Default::default() }.encode_to_vec()),
        ("ListInvitations", v1::ListInvitationsRequest { page_size, ..Default::default() }.encode_to_vec()),
        (
            "ListSubscriptions",
            v1::ListSubscriptionsRequest { page_size, ..Default::default() }.encode_to_vec(),
        ),
        ("ListAuditEntries", v1::ListAuditEntriesRequest { page_size, ..Default::default() }.encode_to_vec()),
        (
            "ListAuditCheckpoints",
            v1::ListAuditCheckpointsRequest { page_size, ..Default::default() }.encode_to_vec(),
        ),
        ("ListQuarantine", v1::ListQuarantineRequest { page_size, ..Default::default() }.encode_to_vec()),
    ];
    (lists.into(), empty)
}

/// The request with a page token, which stands last and so counts.
fn with_token(method: &MethodDescriptor, request: &[u8], token: &str) -> Bytes {
    let field = method.input().get_field_by_name("page_token").unwrap();
    let mut message = DynamicMessage::new(method.input());
    message.set_field(&field, Value::String(token.to_owned()));
    [request, &message.encode_to_vec()].concat().into()
}

/// The first byte chooses the list; the rest is a token, or what stands in one behind the mark of its query.
#[test]
fn page_tokens() {
    let turn = turn();
    let office = Office::open();
    let [local, ..] = callers();
    let methods: Vec<MethodDescriptor> = office
        .methods()
        .into_iter()
        .filter(|method| method.input().get_field_by_name("page_token").is_some())
        .collect();
    let (requests, empty) = lists();
    let next = |method: &MethodDescriptor, request: Bytes| {
        let answer = office.call(method, local.clone(), request);
        let answer = DynamicMessage::decode(method.output(), answer.unwrap()).unwrap();
        answer.get_field_by_name("next_page_token").unwrap().as_str().unwrap().to_owned()
    };
    let (mut samples, mut tokens) = (Vec::new(), Vec::new());
    for (at, method) in methods.iter().enumerate() {
        let request = requests.get(method.name()).unwrap_or_else(|| panic!("add {} here", method.name()));
        let token = next(method, request.clone().into());
        assert_eq!(token.is_empty(), empty.contains(&method.name()), "{}: {token}", method.name());
        if let Some((_, place)) = token.split_once('.') {
            next(method, with_token(method, request, &token));
            samples.push([&[at as u8], token.as_bytes()].concat());
            samples.push([&[at as u8 | 0x80], place.as_bytes()].concat());
        }
        tokens.push(token);
    }
    let numbers = ["0", "-1", "9223372036854775807", "18446744073709551616", "a", "", "二"];
    samples.extend(numbers.map(|number| [&[0x80], [number; 4].join(".").as_bytes()].concat()));
    fuzz(&turn, "tokens", &samples, |input| {
        let [chosen, text @ ..] = input else { return };
        let Ok(text) = std::str::from_utf8(text) else { return };
        let at = usize::from(*chosen & 0x7f) % methods.len();
        let (method, request) = (&methods[at], &requests[methods[at].name()]);
        let token = match tokens[at].split_once('.') {
            Some((mark, _)) if *chosen & 0x80 != 0 => format!("{mark}.{text}"),
            _ => text.to_owned(),
        };
        let answer = office.call(method, local.clone(), with_token(method, request, &token));
        judge(method, &answer);
        let codes = answer.err().map(|status| status.code());
        assert!(codes.is_none_or(|code| code == Code::InvalidArgument), "{}: {codes:?}", method.name());
    });
}
