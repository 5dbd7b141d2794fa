//! One cell: from what people write to a value, and back. It must never guess: what can be read in two ways is
//! refused.

use guantong_gateway::division::{Division, Tier};
use guantong_proto::codes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as Type, MessageDescriptor, Value};
use time::OffsetDateTime;

use super::error::CellError;
use super::schema::{Column, Form, TextForm, Vocabulary};
use super::text::{content, half_width, split_list};
use super::when;

/// What stands in an empty cell of a column that is not free text.
const NOTHING: [&str; 8] = ["-", "--", "—", "——", "/", "null", "NULL", "N/A"];
const YES: [&str; 9] = ["是", "true", "yes", "y", "1", "有", "真", "√", "✓"];
const NO: [&str; 9] = ["否", "false", "no", "n", "0", "无", "假", "×", "✗"];

/// The cell's value; `None`: it is empty.
pub(super) fn parse(column: &Column, cell: &str) -> Result<Option<Value>, CellError> {
    let text = content(cell);
    if text.is_empty() || !matches!(column.form, Form::Text(_)) && NOTHING.contains(&text) {
        return Ok(None);
    }
    let descriptor = column.part.as_ref().unwrap_or(&column.descriptor);
    if column.part.is_none() && descriptor.is_list() {
        return Ok(Some(Value::List(list(column, descriptor, text)?)));
    }
    one(column, descriptor, text).map(Some)
}

/// The cell as [`parse`] reads it, where it is a list of parts: one value for each entry.
pub(super) fn parse_entries(column: &Column, cell: &str) -> Result<Vec<Option<Value>>, CellError> {
    let descriptor = column.part.as_ref().unwrap_or(&column.descriptor);
    let entry = |text: String| match text.as_str() {
        "" => Ok(None),
        text => one(column, descriptor, text).map(Some),
    };
    split_list(content(cell)).into_iter().map(entry).collect()
}

fn list(column: &Column, descriptor: &FieldDescriptor, text: &str) -> Result<Vec<Value>, CellError> {
    let Form::Enum(words) = &column.form else {
        let entries = split_list(text).into_iter().filter(|entry| !entry.is_empty());
        return entries.map(|entry| one(column, descriptor, &entry)).collect();
    };
    let mut values: Vec<Value> = Vec::new();
    for word in text.split(['、', '；', ';', '，', ',', '\n', '|', '/', '／', '+']).map(str::trim) {
        let found = match words.find(word) {
            Some(number) => vec![number],
            None if word.is_empty() => Vec::new(),
            // Digits that only make sense one by one, as in 124.
            None if word.bytes().all(|b| b.is_ascii_digit()) => digits(words, word)?,
            None => return Err(CellError::NotEnum(words.labels())),
        };
        for value in found.into_iter().map(Value::EnumNumber) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    Ok(values)
}

fn digits(words: &Vocabulary, word: &str) -> Result<Vec<i32>, CellError> {
    let found = word.chars().map(|digit| words.find(&digit.to_string()));
    found.collect::<Option<_>>().ok_or_else(|| CellError::NotEnum(words.labels()))
}

fn one(column: &Column, descriptor: &FieldDescriptor, text: &str) -> Result<Value, CellError> {
    match &column.form {
        Form::Text(form) => self::text(*form, text).map(Value::String),
        Form::Integer => integer(descriptor, text),
        Form::Decimal => {
            let number = half_width(text).parse::<f64>().ok().filter(|number| number.is_finite());
            let number = number.ok_or(CellError::NotNumber)?;
            Ok(if descriptor.kind() == Type::Float { Value::F32(number as f32) } else { Value::F64(number) })
        }
        Form::Bool => boolean(column, text).map(Value::Bool).ok_or(CellError::NotBool),
        Form::Enum(words) => {
            words.find(text).map(Value::EnumNumber).ok_or_else(|| CellError::NotEnum(words.labels()))
        }
        Form::Date(message) => {
            let day = when::date(text).ok_or(CellError::NotDate)?;
            let parts = [day.year(), i32::from(u8::from(day.month())), i32::from(day.day())];
            let mut date = DynamicMessage::new(message.clone());
            for (number, part) in (1..).zip(parts) {
                date.set_field_by_number(number, Value::I32(part));
            }
            Ok(Value::Message(date))
        }
        Form::Timestamp(message) => {
            Ok(Value::Message(timestamp(message, when::moment(text).ok_or(CellError::NotTime)?)))
        }
    }
}

/// A `google.protobuf.Timestamp`.
pub(super) fn timestamp(message: &MessageDescriptor, at: OffsetDateTime) -> DynamicMessage {
    let mut timestamp = DynamicMessage::new(message.clone());
    timestamp.set_field_by_number(1, Value::I64(at.unix_timestamp()));
    timestamp.set_field_by_number(2, Value::I32(at.nanosecond().try_into().unwrap_or(0)));
    timestamp
}

fn text(form: TextForm, text: &str) -> Result<String, CellError> {
    let narrow = half_width(text);
    let code = narrow.trim();
    match form {
        TextForm::Plain | TextForm::Boundary => Ok(text.to_owned()),
        TextForm::Code(list) => {
            // A code that is not in the list is carried; a word that is not is a mistake.
            let is_code = |code: &str| {
                code.len() <= 64
                    && code.starts_with(|c: char| c.is_ascii_lowercase())
                    && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            };
            match codes::find(list, text).or_else(|| codes::find(list, code)) {
                Some(entry) => Ok(entry.code.to_owned()),
                None if is_code(code) => Ok(code.to_owned()),
                None => Err(CellError::NotCode(list.iter().map(|c| c.label).collect::<Vec<_>>().join("、"))),
            }
        }
        TextForm::Division => Ok(Division::parse(unshortened(code)?)?.to_string()),
        TextForm::GridCode => {
            let code = fixed_digits(code, 15)?;
            let division = Division::parse(&code[..12])?;
            if division.tier() > Tier::Township {
                return Err(guantong_gateway::division::DivisionError::NoTownship.into());
            }
            Ok(code.to_owned())
        }
        TextForm::DeviceId => {
            let code = fixed_digits(code, 20)?;
            if !matches!(&code[10..13], "131" | "132") {
                return Err(CellError::DeviceType);
            }
            Ok(code.to_owned())
        }
    }
}

fn fixed_digits(code: &str, count: usize) -> Result<&str, CellError> {
    let code = unshortened(code)?;
    if code.len() != count || !code.bytes().all(|b| b.is_ascii_digit()) {
        return Err(CellError::Digits(count));
    }
    Ok(code)
}

/// Refuses what a spreadsheet makes of a long number.
fn unshortened(code: &str) -> Result<&str, CellError> {
    let shortened = code.contains(['e', 'E']) && code.parse::<f64>().is_ok();
    if shortened { Err(CellError::Scientific) } else { Ok(code) }
}

/// A count or a sum: never negative. Thousands may be separated, decimals must be zero.
fn integer(descriptor: &FieldDescriptor, text: &str) -> Result<Value, CellError> {
    let text = half_width(text);
    let text = text.trim();
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let grouped = whole.contains(',');
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let fits = is_number(first)
        && (!grouped || first.len() <= 3)
        && groups.all(|group| group.len() == 3 && is_number(group))
        && decimals.bytes().all(|b| b == b'0');
    if !fits {
        return Err(CellError::NotInteger);
    }
    let number = whole.replace(',', "").parse::<i64>().map_err(|_| CellError::TooLarge)?;
    if negative && number != 0 {
        return Err(CellError::Negative);
    }
    let value = match descriptor.kind() {
        Type::Int32 => i32::try_from(number).ok().map(Value::I32),
        Type::Uint32 => u32::try_from(number).ok().map(Value::U32),
        Type::Uint64 => u64::try_from(number).ok().map(Value::U64),
        _ => Some(Value::I64(number)),
    };
    value.ok_or(CellError::TooLarge)
}

/// Yes or no; also the column's own word (`成功` in `是否成功`) with or without a negation.
fn boolean(column: &Column, text: &str) -> Option<bool> {
    let text = half_width(text).trim().to_lowercase();
    if YES.contains(&text.as_str()) {
        return Some(true);
    }
    if NO.contains(&text.as_str()) {
        return Some(false);
    }
    let (answer, word) = match (text.strip_prefix('已'), text.strip_prefix(['未', '不', '非', '没'])) {
        (Some(word), _) => (true, word),
        (_, Some(word)) => (false, word),
        _ => (true, text.as_str()),
    };
    (!word.is_empty() && column.chinese.contains(word)).then_some(answer)
}

/// A value as [`parse`] reads it.
pub(super) fn show(form: &Form, value: &Value, chinese: bool) -> String {
    match (form, value) {
        (_, Value::List(values)) => {
            let shown: Vec<String> = values.iter().map(|value| show(form, value, chinese)).collect();
            match form {
                Form::Text(_) => super::text::join_list(shown.iter().map(String::as_str)),
                _ => shown.join(if chinese { "、" } else { ";" }),
            }
        }
        (Form::Text(TextForm::Code(list)), Value::String(code)) if chinese => {
            codes::find(list, code).map_or_else(|| code.clone(), |entry| entry.label.to_owned())
        }
        (_, Value::String(text)) => text.clone(),
        (_, Value::Bool(yes)) if chinese => if *yes { "是" } else { "否" }.to_owned(),
        (_, Value::Bool(yes)) => yes.to_string(),
        (Form::Enum(_), Value::EnumNumber(0)) => String::new(),
        (Form::Enum(words), Value::EnumNumber(number)) => words.text(*number, chinese),
        (Form::Date(_), Value::Message(date)) => {
            let part = |number| date.get_field_by_number(number).and_then(|v| v.as_i32()).unwrap_or_default();
            format!("{:04}-{:02}-{:02}", part(1), part(2), part(3))
        }
        (Form::Timestamp(_), Value::Message(at)) => {
            let seconds = at.get_field_by_number(1).and_then(|v| v.as_i64()).unwrap_or_default();
            when::moment_text(seconds, at.get_field_by_number(2).and_then(|v| v.as_i32()).unwrap_or_default())
        }
        (_, Value::I32(number)) => number.to_string(),
        (_, Value::I64(number)) => number.to_string(),
        (_, Value::U32(number)) => number.to_string(),
        (_, Value::U64(number)) => number.to_string(),
        (_, Value::F32(number)) => number.to_string(),
        (_, Value::F64(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ledger::KindView;

    fn column(kind: &str, english: &str) -> &'static Column {
        KindView::by_name(kind).unwrap().columns.iter().find(|c| c.english == english).unwrap()
    }

    /// What a cell reads as, shown in Chinese.
    fn read(kind: &str, english: &str, cell: &str) -> Result<String, CellError> {
        let column = column(kind, english);
        Ok(parse(column, cell)?.map(|value| show(&column.form, &value, true)).unwrap_or_default())
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (cell, number) in [("1,234", "1234"), ("１２", "12"), ("12.00", "12"), (" 0 ", "0"), ("——", "")]
        {
            assert_eq!(read("grid", "households", cell).as_deref(), Ok(number), "{cell}");
        }
        for (cell, error) in [
            ("-1", CellError::Negative),
            ("1.5", CellError::NotInteger),
            ("12,34", CellError::NotInteger),
            ("十二", CellError::NotInteger),
            ("", CellError::NotInteger),
            ("3000000000", CellError::TooLarge),
            ("99999999999999999999", CellError::TooLarge),
        ]
        .into_iter()
        .filter(|(cell, _)| !cell.is_empty())
        {
            assert_eq!(read("grid", "households", cell), Err(error), "{cell}");
        }
        assert_eq!(read("case", "amount_yuan", "3,000,000,000.00").as_deref(), Ok("3000000000"));
    }

    #[test]
    fn yes_and_no_have_many_words() {
        for cell in ["是", "TRUE", "1", "已联网", "联网", "√"] {
            assert_eq!(read("camera", "connected", cell).as_deref(), Ok("是"), "{cell}");
        }
        for cell in ["否", "0", "未联网", "n", "×"] {
            assert_eq!(read("camera", "connected", cell).as_deref(), Ok("否"), "{cell}");
        }
        assert_eq!(read("case", "outcome.succeeded", "不成功").as_deref(), Ok("否"));
        assert_eq!(read("camera", "connected", "也许"), Err(CellError::NotBool));
        assert_eq!(read("camera", "connected", "未知"), Err(CellError::NotBool));
    }

    #[test]
    fn lists_of_values_in_one_cell() {
        for cell in ["人脸、车辆", "face;vehicle", "1/3", "13", "人脸识别，车辆，人脸"] {
            assert_eq!(read("camera", "functions", cell).as_deref(), Ok("人脸、车辆"), "{cell}");
        }
        assert!(matches!(read("camera", "functions", "17"), Err(CellError::NotEnum(_))));
    }

    #[test]
    fn codes_have_their_form() {
        let id = "22082200001310000001";
        assert_eq!(read("camera", "device_id", &format!("'{id}")).as_deref(), Ok(id));
        assert_eq!(read("camera", "device_id", "2.20822E+19"), Err(CellError::Scientific));
        assert_eq!(read("camera", "device_id", "2208220000131000001"), Err(CellError::Digits(20)));
        assert_eq!(read("camera", "device_id", "22082200001180000001"), Err(CellError::DeviceType));
        assert_eq!(read("camera", "division", "220822").as_deref(), Ok("220822000000"));
        assert!(matches!(read("camera", "division", "开通镇"), Err(CellError::Division(_))));
        assert_eq!(
            read("grid", "grid_code", "２２０８２２１０１００１００１").as_deref(),
            Ok("220822101001001")
        );
        assert!(matches!(read("grid", "grid_code", "220822000000001"), Err(CellError::Division(_))));
        assert_eq!(read("grid", "grid_code", "22082210100100"), Err(CellError::Digits(15)));
        assert_eq!(read("case", "category", "邻里纠纷").as_deref(), Ok("邻里"));
        assert_eq!(read("case", "category", "cyber_fraud").as_deref(), Ok("cyber_fraud"));
        assert!(matches!(read("case", "category", "鸡毛蒜皮"), Err(CellError::NotCode(_))));
    }

    #[test]
    fn words_of_an_enum_are_named_when_none_fits() {
        let error = read("grid", "grid_type", "巨网格").unwrap_err().to_string();
        assert!(error.contains("综合网格、专属网格、微网格") && !error.contains("巨网格"), "{error}");
    }
}
