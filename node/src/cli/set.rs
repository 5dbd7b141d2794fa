//! `guantong set`: writes fields of one record. It replaces what is shown and nothing else: a value that stands beside
//! it unseen stays, as a conflict.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use guantong_gateway::division::Division;
use guantong_proto::rules::Kind;
use guantong_proto::v1;
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind as Type};
use serde_json::{Map, Value};

use super::connection::NodeArgs;
use super::report::Report;
use super::{case_move, get, json, problem};
use crate::client::Client;
use crate::ledger;

const EXAMPLE: &str = "\
  guantong set divisions/220822101000/grids/220822101201001 display_name=东街一网格 households=312
  guantong set divisions/220822000000/cameras/22082200001320000001 status.state=off status.observed_at=2026-11-21T06:00:00Z
  guantong set divisions/220822101000/cases/12345 address=            (clears the field; 清空该字段)
  guantong set divisions/220822101000/cases/12345 --from fields.json  (as `get --json` shows them under `fields`)

A value is JSON, or else plain text; an enum value may be short (off). A part of a nested field (status.state) is
written together with its other parts as they are.";

/// Write fields of one record (修改记录的字段)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct SetArgs {
    /// The record's name; it is created if it is missing
    name: String,
    /// What to write; nothing after the = clears the field
    #[arg(value_name = "FIELD=VALUE", required_unless_present = "from")]
    fields: Vec<String>,
    /// A JSON object of fields; null clears one; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "fields")]
    from: Option<PathBuf>,
    /// Refuse if the record has changed since this etag was read
    #[arg(long)]
    etag: Option<String>,
    /// Refuse if the record exists
    #[arg(long)]
    create: bool,
    /// Write as this division, for which the node acts
    #[arg(long = "as", value_name = "CODE")]
    acting: Option<Division>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

pub(crate) async fn run(args: &SetArgs) -> anyhow::Result<Report> {
    let kind = json::kind_of(&args.name)?;
    let client = args.node.connect().await?;
    let mut edit = Edit { kind, fields: Map::new(), etag: args.etag.clone().unwrap_or_default() };
    match &args.from {
        Some(file) => edit.fields = read_object(file)?,
        None => edit.assign(&client, args).await?,
    }
    let paths: Vec<String> = edit.fields.keys().cloned().collect();
    let present: Map<String, Value> = edit.fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
    let (_, fields) = ledger::json_to_fields(kind.name, &Value::Object(present))?;
    let record = v1::Record {
        name: args.name.clone(),
        fields: fields.into(),
        etag: edit.etag,
        ..v1::Record::default()
    };
    let request = v1::WriteRecordRequest {
        record: Some(record),
        update_mask: Some(prost_types::FieldMask { paths }),
        acting_division: args.acting.map(|division| division.to_string()).unwrap_or_default(),
        request_id: request_id()?,
        must_create: args.create,
    };
    let written = client.records().write_record(request).await.map_err(problem::plain)?.into_inner();
    get::report(&written)
}

/// What is to be written; null: cleared.
struct Edit {
    kind: &'static Kind,
    fields: Map<String, Value>,
    etag: String,
}

impl Edit {
    async fn assign(&mut self, client: &Client, args: &SetArgs) -> anyhow::Result<()> {
        let mut shown = None;
        for assignment in &args.fields {
            let (path, text) = assignment
                .split_once('=')
                .with_context(|| format!("«{assignment}» is not of the form field=value (应写作 字段=值)"))?;
            let (name, part) = path.split_once('.').map_or((path, None), |(name, part)| (name, Some(part)));
            let field = self.field(name)?;
            match part {
                None => {
                    self.fields.insert(name.to_owned(), value(&field, text)?);
                }
                Some(part) => {
                    // The other parts must be those that are there now, so a change meanwhile is refused.
                    if shown.is_none() {
                        shown = Some(self.shown(client, &args.name).await?);
                    }
                    let before = shown.as_ref().and_then(|shown| shown.get(name)).cloned();
                    self.set_part(&field, part, text, before.unwrap_or_else(|| Value::Object(Map::new())))?;
                }
            }
        }
        Ok(())
    }

    fn field(&self, name: &str) -> anyhow::Result<FieldDescriptor> {
        let known = self.kind.field_by_name(name).map(|field| field.number);
        let message = json::descriptor(self.kind.message)?;
        known.and_then(|number| message.get_field(number)).ok_or_else(|| {
            let names: Vec<&str> = self.kind.fields.iter().map(|field| field.name).collect();
            anyhow!(
                "{} has no field «{name}»; its fields are {} (没有这一字段)",
                self.kind.name,
                names.join(", ")
            )
        })
    }

    fn set_part(
        &mut self,
        field: &FieldDescriptor,
        part: &str,
        text: &str,
        before: Value,
    ) -> anyhow::Result<()> {
        let Some(message) = field.kind().as_message().cloned().filter(|_| !field.is_list()) else {
            bail!("{} has no parts; write {}=VALUE", field.name(), field.name());
        };
        let Some(inner) = message.get_field_by_name(part) else {
            let names: Vec<String> = message.fields().map(|field| field.name().to_owned()).collect();
            bail!("{} has no part «{part}»; its parts are {} (没有这一部分)", field.name(), names.join(", "));
        };
        let value = value(&inner, text)?;
        let nested = self.fields.entry(field.name()).or_insert(before);
        if let Some(object) = nested.as_object_mut() {
            object.insert(part.to_owned(), value);
        }
        Ok(())
    }

    /// The fields as they are now. A record that does not exist yet has none.
    async fn shown(&mut self, client: &Client, name: &str) -> anyhow::Result<Value> {
        let request = v1::GetRecordRequest { name: name.to_owned() };
        match client.records().get_record(request).await {
            Ok(answer) => {
                let record = answer.into_inner();
                if self.etag.is_empty() {
                    self.etag = record.etag;
                }
                json::of_fields(self.kind, &record.fields)
            }
            Err(status) if status.code() == tonic::Code::NotFound => Ok(Value::Null),
            Err(status) => Err(problem::plain(status)),
        }
    }
}

/// A value as it is typed.
fn value(field: &FieldDescriptor, text: &str) -> anyhow::Result<Value> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    match field.kind() {
        // 220822101000 is a text where a text is wanted.
        Type::String if !field.is_list() => Ok(Value::String(unquoted(text))),
        Type::Enum(words) if field.is_list() => {
            text.trim_matches(['[', ']']).split(',').map(|word| enum_value(&words, word.trim())).collect()
        }
        Type::Enum(words) => enum_value(&words, text),
        Type::Message(message) if message.full_name() == "guantong.v1.Date" && !text.starts_with('{') => {
            let day = case_move::date(text).map_err(|error| anyhow!("{error} (日期应写为 2026-11-21)"))?;
            Ok(serde_json::json!({ "year": day.year, "month": day.month, "day": day.day }))
        }
        _ => Ok(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))),
    }
}

/// A text may stand in quotation marks, as JSON has it.
fn unquoted(text: &str) -> String {
    serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_owned())
}

/// An enum value by its name, or by the end of it: `off` for `CAMERA_STATE_OFF`.
fn enum_value(words: &EnumDescriptor, text: &str) -> anyhow::Result<Value> {
    let wanted = unquoted(text).to_ascii_uppercase();
    let suffix = format!("_{wanted}");
    let names: Vec<String> = words.values().map(|value| value.name().to_owned()).collect();
    let exact = names.iter().find(|name| **name == wanted);
    let mut ends = names.iter().filter(|name| name.ends_with(&suffix));
    let found = match (exact, ends.next(), ends.next()) {
        (Some(exact), ..) => Some(exact),
        (None, Some(only), None) => Some(only),
        _ => None,
    };
    let found = found.ok_or_else(|| anyhow!("write one of {} (不在可选值之内)", names.join(", ")))?;
    Ok(Value::String(found.clone()))
}

fn read_object(file: &PathBuf) -> anyhow::Result<Map<String, Value>> {
    let text = match file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    match serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))? {
        Value::Object(fields) if !fields.is_empty() => Ok(fields),
        _ => bail!("{} must hold a JSON object of fields, such as {{\"households\": 312}}", file.display()),
    }
}

/// Makes a repeated request the same request.
pub(crate) fn request_id() -> anyhow::Result<String> {
    let [a, b] = [getrandom::u64()?, getrandom::u64()?];
    Ok(format!("{a:016x}{b:016x}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn edit(kind: &str) -> Edit {
        Edit { kind: Kind::by_name(kind).unwrap(), fields: Map::new(), etag: String::new() }
    }

    fn read(kind: &str, field: &str, text: &str) -> Value {
        value(&edit(kind).field(field).unwrap(), text).unwrap()
    }

    #[test]
    fn values_are_read_as_their_field_wants_them() {
        assert_eq!(read("case", "division", "220822101000"), "220822101000");
        assert_eq!(read("case", "title", "\"12\""), "12");
        assert_eq!(read("case", "involved_count", "12"), 12);
        assert_eq!(read("case", "title", ""), Value::Null);
        assert_eq!(read("case", "risk", "red"), "CASE_RISK_RED");
        assert_eq!(read("case", "risk", "CASE_RISK_RED"), "CASE_RISK_RED");
        assert_eq!(
            read("case", "due_on", "2026-11-30"),
            serde_json::json!({ "year": 2026, "month": 11, "day": 30 })
        );
        let error = value(&edit("case").field("risk").unwrap(), "pink").unwrap_err().to_string();
        assert!(error.contains("CASE_RISK_RED"), "{error}");
    }

    #[test]
    fn a_part_is_written_with_the_parts_beside_it() {
        let mut edit = edit("grid");
        let contact = edit.field("contact").unwrap();
        let before = serde_json::json!({ "name": "张三", "telephone": "1" });
        edit.set_part(&contact, "telephone", "2", before.clone()).unwrap();
        edit.set_part(&contact, "name", "李四", before).unwrap();
        assert_eq!(edit.fields["contact"], serde_json::json!({ "name": "李四", "telephone": "2" }));
        assert!(edit.set_part(&contact, "age", "2", Value::Null).is_err());
    }

    #[test]
    fn an_unknown_field_is_answered_with_those_there_are() {
        let error = edit("grid").field("colour").unwrap_err().to_string();
        assert!(error.contains("grid_code"), "{error}");
    }
}
