//! Invitations of new nodes: the code that an operator passes on, and whether it lets somebody in.
//!
//! It is pure: time and randomness are arguments. A secret is kept as a hash only; it must never be shown by anything
//! here but [`Code`] itself, and never be told from a wrong one to whoever gave it.

pub mod guesses;

use std::fmt;
use std::str::FromStr;

use crate::division::Division;

/// Bytes of the secret: 88 bits.
pub const SECRET_BYTES: usize = 11;
/// Bytes of the fingerprint: 128 bits.
pub const FINGERPRINT_BYTES: usize = 16;
const CHECK_BYTES: usize = 3;
const CODE_BYTES: usize = SECRET_BYTES + FINGERPRINT_BYTES + CHECK_BYTES;
/// Characters of a code, without what separates them: five bits each.
const CODE_CHARACTERS: usize = CODE_BYTES * 8 / 5;
/// Characters between two separators.
const GROUP: usize = 4;
/// Digits and letters without I, L, O and U, which are mistaken for others (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// What a new node is given: a secret, and by what it knows its parent.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    /// Lets it in, once.
    pub secret: [u8; SECRET_BYTES],
    /// The first 128 bits of the SHA-256 of the certificate of the authority that ends the parent's chain.
    pub fingerprint: [u8; FINGERPRINT_BYTES],
}

/// Why a text is not a code. None of them says anything about the code's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Too short or too long; holds how many characters there are.
    #[error(
        "a code has {CODE_CHARACTERS} letters and digits, this has {0}; copy it whole (邀请码应有{CODE_CHARACTERS}个字符)"
    )]
    Length(usize),
    /// A character that no code has.
    #[error("«{0}» cannot stand in a code; copy it again (邀请码中有无效字符)")]
    Character(char),
    /// Something was mistyped.
    #[error("the code has a typing error; compare it with what you were given (邀请码有误，请核对)")]
    Checksum,
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

/// Groups of four characters, with hyphens between them.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; CODE_BYTES];
        bytes[..SECRET_BYTES].copy_from_slice(&self.secret);
        bytes[SECRET_BYTES..][..FINGERPRINT_BYTES].copy_from_slice(&self.fingerprint);
        bytes[SECRET_BYTES + FINGERPRINT_BYTES..].copy_from_slice(&self.checksum());
        for index in 0..CODE_CHARACTERS {
            if index > 0 && index % GROUP == 0 {
                f.write_str("-")?;
            }
            let value = (0..5).fold(0, |value, bit| value << 1 | bit_of(&bytes, index * 5 + bit));
            write!(f, "{}", char::from(ALPHABET[usize::from(value)]))?;
        }
        Ok(())
    }
}

fn bit_of(bytes: &[u8], bit: usize) -> u8 {
    bytes[bit / 8] >> (7 - bit % 8) & 1
}

/// Reads what a person typed: hyphens and blanks wherever, small letters, O for 0, I and L for 1.
impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Code, CodeError> {
        let typed = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
        let values: Vec<u8> = typed.map(value_of).collect::<Result<_, _>>()?;
        if values.len() != CODE_CHARACTERS {
            return Err(CodeError::Length(values.len()));
        }
        let mut bytes = [0; CODE_BYTES];
        for (index, value) in values.iter().enumerate() {
            for bit in 0..5 {
                let at = index * 5 + bit;
                bytes[at / 8] |= (value >> (4 - bit) & 1) << (7 - at % 8);
            }
        }
        let mut code = Code { secret: [0; SECRET_BYTES], fingerprint: [0; FINGERPRINT_BYTES] };
        code.secret.copy_from_slice(&bytes[..SECRET_BYTES]);
        code.fingerprint.copy_from_slice(&bytes[SECRET_BYTES..][..FINGERPRINT_BYTES]);
        let right = bytes[SECRET_BYTES + FINGERPRINT_BYTES..] == code.checksum();
        if right { Ok(code) } else { Err(CodeError::Checksum) }
    }
}

fn value_of(typed: char) -> Result<u8, CodeError> {
    let letter = match typed.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let found = ALPHABET.iter().position(|known| char::from(*known) == letter);
    found.and_then(|index| u8::try_from(index).ok()).ok_or(CodeError::Character(typed))
}

impl Code {
    /// Tells a typing error from a wrong code.
    fn checksum(&self) -> [u8; CHECK_BYTES] {
        let mut hash = blake3::Hasher::new_derive_key("guantong invitation 1 checksum");
        hash.update(&self.secret).update(&self.fingerprint);
        let mut checksum = [0; CHECK_BYTES];
        checksum.copy_from_slice(&hash.finalize().as_bytes()[..CHECK_BYTES]);
        checksum
    }
}

/// What is kept of a secret. It has 88 random bits, so a plain hash does.
pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
    blake3::derive_key("guantong invitation 1 secret", secret)
}

/// A place that is kept for a new node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Drawn at random; not a part of the code.
    pub id: u64,
    /// Of the code's secret.
    pub secret_hash: [u8; 32],
    /// Whose node it is for.
    pub division: Division,
    /// By which DNS names and addresses others will dial it.
    pub hosts: Vec<String>,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Who made it.
    pub created_by: String,
    /// From when on the code is not accepted any more, Unix milliseconds.
    pub expire_ms: u64,
    /// What became of it.
    pub fate: Fate,
}

/// What became of an invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet.
    Open,
    /// A node came by it.
    Used {
        /// Unix milliseconds.
        at_ms: u64,
        /// Hash of its public key.
        key_hash: [u8; 32],
        /// What it was given, encoded by the service.
        answer: Vec<u8>,
    },
    /// It was taken back.
    Withdrawn {
        /// Unix milliseconds.
        at_ms: u64,
    },
}

/// Why a code is not accepted: for the log and the audit log of this node, never for whoever gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// No invitation has that secret.
    #[error("no invitation has this code (邀请码不存在)")]
    Wrong,
    /// A node with another key came by it.
    #[error("the code was used already (邀请码已使用)")]
    Used,
    /// Nobody used it in time.
    #[error("the code has expired (邀请码已过期)")]
    Expired,
    /// An operator took it back.
    #[error("the invitation was taken back (邀请已撤回)")]
    Withdrawn,
}

impl NotAccepted {
    /// A short fixed name.
    pub const fn code(self) -> &'static str {
        match self {
            NotAccepted::Wrong => "wrong",
            NotAccepted::Used => "used",
            NotAccepted::Expired => "expired",
            NotAccepted::Withdrawn => "withdrawn",
        }
    }
}

/// What a code that is accepted brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission<'i> {
    /// A new certificate.
    New,
    /// What was given before: the answer may have been lost.
    Again(&'i [u8]),
}

impl Invitation {
    /// Whether its code lets a node with this key in now.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, key_hash: &[u8; 32], now_ms: u64) -> Result<Admission<'_>, NotAccepted> {
        match &self.fate {
            Fate::Used { key_hash: known, answer, .. } if known == key_hash => Ok(Admission::Again(answer)),
            Fate::Used { .. } => Err(NotAccepted::Used),
            Fate::Withdrawn { .. } => Err(NotAccepted::Withdrawn),
            Fate::Open if now_ms >= self.expire_ms => Err(NotAccepted::Expired),
            Fate::Open => Ok(Admission::New),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invitation(fate: Fate) -> Invitation {
        Invitation {
            id: 1,
            secret_hash: secret_hash(&[1; SECRET_BYTES]),
            division: Division::parse("220822101").unwrap(),
            hosts: Vec::new(),
            created_ms: 0,
            created_by: "operator li".into(),
            expire_ms: 100,
            fate,
        }
    }

    #[test]
    fn a_code_lets_one_key_in_until_it_expires() {
        let (mine, other) = ([1; 32], [2; 32]);
        let open = invitation(Fate::Open);
        assert_eq!(open.admits(&mine, 99), Ok(Admission::New));
        assert_eq!(open.admits(&mine, 100), Err(NotAccepted::Expired));
        let used = invitation(Fate::Used { at_ms: 5, key_hash: mine, answer: vec![7] });
        assert_eq!(used.admits(&mine, 1_000), Ok(Admission::Again(&[7])), "the answer was lost");
        assert_eq!(used.admits(&other, 6), Err(NotAccepted::Used));
        assert_eq!(invitation(Fate::Withdrawn { at_ms: 5 }).admits(&mine, 6), Err(NotAccepted::Withdrawn));
    }

    #[test]
    fn a_code_is_not_shown_by_accident() {
        let code = Code { secret: [0xab; SECRET_BYTES], fingerprint: [0xcd; FINGERPRINT_BYTES] };
        assert_eq!(format!("{code:?}"), "Code(…)");
        assert_eq!("".parse::<Code>(), Err(CodeError::Length(0)));
        assert_eq!("u".parse::<Code>(), Err(CodeError::Character('u')));
        assert_eq!("码".parse::<Code>(), Err(CodeError::Character('码')));
    }

    fn codes() -> impl Strategy<Value = Code> {
        (any::<[u8; SECRET_BYTES]>(), any::<[u8; FINGERPRINT_BYTES]>())
            .prop_map(|(secret, fingerprint)| Code { secret, fingerprint })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(code in codes(), seed in any::<u64>()) {
            let text = code.to_string();
            prop_assert_eq!(text.len(), 59);
            prop_assert_eq!(text.parse::<Code>(), Ok(code.clone()));
            // As people type it.
            let typed: String = text.chars().enumerate().map(|(i, c)| match c {
                '-' if seed >> (i % 64) & 1 == 1 => ' ',
                '0' if seed >> (i % 64) & 1 == 1 => 'o',
                '1' if seed >> (i % 64) & 1 == 1 => 'l',
                c => c.to_ascii_lowercase(),
            }).collect();
            prop_assert_eq!(typed.parse::<Code>(), Ok(code));
        }

        #[test]
        fn a_typing_error_is_noticed(code in codes(), at in 0..CODE_CHARACTERS, other in 0usize..31) {
            let mut typed: Vec<char> = code.to_string().chars().filter(|c| *c != '-').collect();
            let values: Vec<char> = ALPHABET.iter().map(|c| char::from(*c)).filter(|c| *c != typed[at]).collect();
            typed[at] = values[other];
            prop_assert_eq!(typed.iter().collect::<String>().parse::<Code>(), Err(CodeError::Checksum));
            let swapped = (at + 1) % CODE_CHARACTERS;
            let mut turned: Vec<char> = code.to_string().chars().filter(|c| *c != '-').collect();
            turned.swap(at, swapped);
            if turned[at] != turned[swapped] {
                prop_assert_eq!(turned.into_iter().collect::<String>().parse::<Code>(), Err(CodeError::Checksum));
            }
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,80}") {
            if let Ok(code) = text.parse::<Code>() {
                prop_assert_eq!(code.to_string().parse::<Code>(), Ok(code));
            }
        }
    }
}
