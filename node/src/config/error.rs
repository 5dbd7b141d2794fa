//! What is wrong with a configuration, in plain words, all of it at once. It must never repeat a value.

use std::fmt;
use std::path::PathBuf;

use figment::error::{Actual, Kind};

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source} (无法读取配置文件)", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file, or the environment over it, is wrong.
    #[error("the configuration {} cannot be used (配置有误):{}", path.display(), lines(problems))]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Everything that is wrong.
        problems: Vec<Problem>,
    },
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key with its tables, such as `parent.address`; empty: the file as a whole.
    pub key: String,
    /// What is wrong and what to do.
    pub what: String,
    /// It came from an environment variable, not from the file.
    pub from_environment: bool,
}

impl Problem {
    pub(super) fn new(key: &str, what: String) -> Problem {
        Problem { key: key.to_owned(), what, from_environment: false }
    }

    /// The name of the environment variable for a key.
    fn variable(key: &str) -> String {
        format!("{}{}", super::read::PREFIX, key.replace('.', "__").to_uppercase())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), self.from_environment) {
            ("", _) => f.write_str(&self.what),
            (key, false) => write!(f, "`{key}`: {}", self.what),
            (key, true) => write!(f, "`{key}` (set by {}): {}", Problem::variable(key), self.what),
        }
    }
}

impl From<figment::Error> for Problem {
    fn from(error: figment::Error) -> Problem {
        let mut path = error.path.clone();
        let what = match error.kind {
            Kind::UnknownField(name, known) => {
                if path.last() != Some(&name) {
                    path.push(name);
                }
                format!("there is no such key; known here are {} (没有这一配置项)", known.join(", "))
            }
            Kind::MissingField(name) => {
                if path.last().is_none_or(|last| last != name.as_ref()) {
                    path.push(name.into_owned());
                }
                "is missing, and there is no default for it (缺少此项)".to_owned()
            }
            Kind::UnknownVariant(_, known) => format!("write one of {}", known.join(", ")),
            Kind::DuplicateField(name) => format!("{name} is given twice; remove one"),
            Kind::InvalidType(found, expected) => {
                format!("{expected} is expected here, not {}", type_of(&found))
            }
            Kind::InvalidValue(_, expected) => format!("{expected} is expected here"),
            Kind::InvalidLength(found, expected) => format!("{expected} is expected here, not {found}"),
            Kind::Message(text) => text.trim_end().to_owned(),
            Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => "the number is too large".to_owned(),
            Kind::Unsupported(_) | Kind::UnsupportedKey(..) => {
                "a value of this type has no place here".to_owned()
            }
        };
        let from_environment = error.metadata.is_some_and(|metadata| metadata.name.contains("environment"));
        Problem { key: path.join("."), what, from_environment }
    }
}

/// What was found, without its content.
fn type_of(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        Actual::Option | Actual::Unit => "nothing",
        _ => "something else",
    }
}
