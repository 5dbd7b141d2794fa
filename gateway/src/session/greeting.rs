//! The greeting: who the other side is, and whether both stores are the ones that met last.
//!
//! Everything here is a decision over values. It must never store a token: the driver does, in the transaction that
//! acts on what was recognised, before it goes on with the session.

use std::ops::RangeInclusive;

use guantong_proto::v1;
use guantong_proto::v1::Recognition;

use crate::division::Division;

/// The protocols that this build speaks.
pub const PROTOCOLS: RangeInclusive<u32> = 1..=1;

/// What a parent gives a child with each Welcome, and the child's next Hello returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Rises with every Welcome.
    pub counter: u64,
    /// Drawn anew each time.
    pub random: u64,
}

impl Token {
    /// Stands for "no token", which a child may return until it has confirmed its first. Counters begin at 1.
    const NONE: Token = Token { counter: 0, random: 0 };
}

impl From<v1::Token> for Token {
    fn from(token: v1::Token) -> Token {
        Token { counter: token.counter, random: token.random }
    }
}

impl From<Token> for v1::Token {
    fn from(token: Token) -> v1::Token {
        v1::Token { counter: token.counter, random: token.random }
    }
}

/// What a parent remembers of the tokens it gave to one child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IssuedTokens {
    /// Given with the last Welcome.
    pub newest: Option<Token>,
    /// The one that the child returned before that Welcome. It is good once more, as long as nobody knows whether the
    /// Welcome arrived: see [`confirmed`](Self::confirmed).
    pub previous: Option<Token>,
    /// The last Welcome told the child that this parent was restored; if it did not arrive, the next one says so again.
    pub parent_restored: bool,
}

impl IssuedTokens {
    /// The token for the next Welcome, and what to store before that Welcome is sent. `hello` is what the child
    /// returned, `recognition` what [`recognise`] made of it, `random` a fresh random number.
    pub fn issue(self, hello: Option<Token>, recognition: Recognition, random: u64) -> (Token, IssuedTokens) {
        let highest = self.newest.iter().chain(&hello).map(|t| t.counter).max().unwrap_or(0);
        let token = Token { counter: highest.saturating_add(1), random };
        let good_again = matches!(recognition, Recognition::Known | Recognition::ParentRestored);
        let issued = IssuedTokens {
            newest: Some(token),
            previous: match recognition {
                Recognition::New => Some(Token::NONE),
                _ => hello.filter(|_| good_again),
            },
            parent_restored: recognition == Recognition::ParentRestored,
        };
        (token, issued)
    }

    /// What to store once the child has sent anything after its Welcome: it has stored the newest token, so from now on
    /// an older one is an old backup or a copy.
    pub fn confirmed(self) -> IssuedTokens {
        IssuedTokens { newest: self.newest, previous: None, parent_restored: false }
    }
}

/// What the token of a Hello says about the two stores. (What revisions say beyond that is the driver's to see.) A
/// child without a token is new; one that had confirmed a token was emptied, or put back to before its first one, and
/// may still write as it did then.
pub fn recognise(issued: &IssuedTokens, hello: Option<Token>) -> Recognition {
    let Some(token) = hello.filter(|t| t.counter > 0) else {
        let never_confirmed = issued.newest.is_none() || issued.previous == Some(Token::NONE);
        return if never_confirmed { Recognition::New } else { Recognition::ChildRestored };
    };
    if issued.newest == Some(token) {
        return Recognition::Known;
    }
    if issued.previous == Some(token) {
        return if issued.parent_restored { Recognition::ParentRestored } else { Recognition::Known };
    }
    match issued.newest {
        Some(newest) if token.counter <= newest.counter => Recognition::ChildRestored,
        _ => Recognition::ParentRestored,
    }
}

/// Why two nodes do not link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// No protocol that both speak.
    #[error(
        "the other node speaks protocol {min} to {max}, this one {} to {}; upgrade the older of the two",
        PROTOCOLS.start(), PROTOCOLS.end()
    )]
    Protocol {
        /// The lowest of the other side.
        min: u32,
        /// The highest of the other side.
        max: u32,
    },
    /// The division in the greeting is not the one in the certificate.
    #[error("the other node says that it is a division other than the {certificate} of its certificate")]
    NotTheCertificate {
        /// The division of the certificate.
        certificate: Division,
    },
    /// The child's division does not lie inside the parent's.
    #[error("division {child} does not lie inside {parent}, so that these nodes cannot be child and parent")]
    NotInside {
        /// Who wants to be the child.
        child: Division,
        /// Who would be the parent.
        parent: Division,
    },
    /// A Welcome without a token or without a word on what it made of the child's.
    #[error("the parent's Welcome does not say what it made of this node, or brings no token")]
    Incomplete,
}

impl GreetingError {
    /// The reason to give when the link ends for it.
    pub fn goodbye(&self) -> v1::GoodbyeReason {
        match self {
            GreetingError::Protocol { .. } => v1::GoodbyeReason::UnsupportedProtocol,
            GreetingError::NotTheCertificate { .. } | GreetingError::NotInside { .. } => {
                v1::GoodbyeReason::WrongDivision
            }
            GreetingError::Incomplete => v1::GoodbyeReason::ProtocolError,
        }
    }
}

/// Whether the node with this certificate may be a child of `own`, and the protocol to speak with it.
///
/// # Errors
/// The first rule that is broken.
pub fn check_hello(own: Division, certificate: Division, hello: &v1::Hello) -> Result<u32, GreetingError> {
    check_division(certificate, &hello.division)?;
    if !own.strictly_contains(certificate) {
        return Err(GreetingError::NotInside { child: certificate, parent: own });
    }
    let highest = hello.protocol_max.min(*PROTOCOLS.end());
    if highest < hello.protocol_min.max(*PROTOCOLS.start()) {
        return Err(GreetingError::Protocol { min: hello.protocol_min, max: hello.protocol_max });
    }
    Ok(highest)
}

/// Whether the node with this certificate may be the parent of `own`; gives the token to store and what was made of
/// the one returned.
///
/// # Errors
/// The first rule that is broken.
pub fn check_welcome(
    own: Division,
    certificate: Division,
    welcome: &v1::Welcome,
) -> Result<(Token, Recognition), GreetingError> {
    check_division(certificate, &welcome.division)?;
    if !certificate.strictly_contains(own) {
        return Err(GreetingError::NotInside { child: own, parent: certificate });
    }
    if !PROTOCOLS.contains(&welcome.protocol) {
        return Err(GreetingError::Protocol { min: welcome.protocol, max: welcome.protocol });
    }
    match (welcome.token, welcome.recognition()) {
        (None, _) | (_, Recognition::Unspecified) => Err(GreetingError::Incomplete),
        (Some(token), recognition) => Ok((token.into(), recognition)),
    }
}

fn check_division(certificate: Division, said: &str) -> Result<(), GreetingError> {
    if said.len() == 12 && Division::parse(said) == Ok(certificate) {
        return Ok(());
    }
    Err(GreetingError::NotTheCertificate { certificate })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn division(code: u64) -> Division {
        Division::from_code(code).unwrap()
    }

    fn hello(code: &str, min: u32, max: u32) -> v1::Hello {
        v1::Hello { division: code.into(), protocol_min: min, protocol_max: max, ..Default::default() }
    }

    /// A Hello that is answered; gives what was recognised and the token.
    fn greet(issued: &mut IssuedTokens, hello: Option<Token>, random: u64) -> (Recognition, Token) {
        let recognition = recognise(issued, hello);
        let (token, next) = issued.issue(hello, recognition, random);
        *issued = next;
        (recognition, token)
    }

    #[test]
    fn a_child_is_known_by_the_token_it_got_last() {
        let mut issued = IssuedTokens::default();
        let (first, one) = greet(&mut issued, None, 11);
        assert_eq!((first, one.counter), (Recognition::New, 1));
        let (second, two) = greet(&mut issued, Some(one), 12);
        assert_eq!((second, two.counter), (Recognition::Known, 2));
    }

    #[test]
    fn welcomes_that_do_not_arrive_do_not_make_a_child_a_stranger() {
        let mut issued = IssuedTokens::default();
        let (_, one) = greet(&mut issued, None, 11);
        for random in 20..25 {
            assert_eq!(greet(&mut issued, Some(one), random).0, Recognition::Known);
        }
    }

    #[test]
    fn an_old_backup_is_noticed_as_soon_as_the_newest_token_is_confirmed() {
        let mut issued = IssuedTokens::default();
        let (_, one) = greet(&mut issued, None, 11);
        let (_, _two) = greet(&mut issued, Some(one), 12);
        assert_eq!(recognise(&issued, Some(one)), Recognition::Known);
        issued = issued.confirmed();
        let (seen, _) = greet(&mut issued, Some(one), 13);
        assert_eq!(seen, Recognition::ChildRestored);
        assert_eq!(
            recognise(&issued, Some(one)),
            Recognition::ChildRestored,
            "until it has stored a new one"
        );
    }

    #[test]
    fn a_child_that_lost_its_first_token_was_put_back_and_one_that_never_got_it_is_new() {
        let mut issued = IssuedTokens::default();
        assert_eq!(greet(&mut issued, None, 11).0, Recognition::New);
        assert_eq!(greet(&mut issued, None, 12).0, Recognition::New, "the first Welcome did not arrive");
        issued = issued.confirmed();
        assert_eq!(greet(&mut issued, None, 13).0, Recognition::ChildRestored);
        assert_eq!(
            greet(&mut issued, None, 14).0,
            Recognition::ChildRestored,
            "until it has stored a new one"
        );
    }

    #[test]
    fn of_two_clones_the_second_to_come_is_noticed() {
        let mut issued = IssuedTokens::default();
        let (_, one) = greet(&mut issued, None, 11);
        issued = issued.confirmed();
        let (_, of_the_clone) = greet(&mut issued, Some(one), 12);
        issued = issued.confirmed();
        assert_eq!(greet(&mut issued, Some(one), 13).0, Recognition::ChildRestored);
        assert_eq!(recognise(&issued, Some(of_the_clone)), Recognition::ChildRestored);
    }

    #[test]
    fn a_restored_parent_notices_itself_and_says_so_until_it_is_heard() {
        let old = IssuedTokens { newest: Some(Token { counter: 5, random: 1 }), ..Default::default() };
        let child = Token { counter: 7, random: 2 };
        let mut issued = old;
        for random in 3..6 {
            assert_eq!(greet(&mut issued, Some(child), random).0, Recognition::ParentRestored);
        }
        let stored = issued.newest.unwrap();
        assert!(stored.counter > child.counter);
        assert_eq!(recognise(&issued, Some(stored)), Recognition::Known);
        assert_eq!(recognise(&IssuedTokens::default(), Some(child)), Recognition::ParentRestored, "emptied");
    }

    #[test]
    fn the_same_counter_with_other_bits_is_a_copy() {
        let issued = IssuedTokens { newest: Some(Token { counter: 5, random: 1 }), ..Default::default() };
        assert_eq!(recognise(&issued, Some(Token { counter: 5, random: 2 })), Recognition::ChildRestored);
    }

    #[test]
    fn the_highest_counter_is_no_trap() {
        let issued = IssuedTokens::default();
        let (token, _) =
            issued.issue(Some(Token { counter: u64::MAX, random: 0 }), Recognition::ParentRestored, 9);
        assert_eq!(token.counter, u64::MAX);
    }

    #[test]
    fn a_child_is_inside_and_says_what_its_certificate_says() {
        let (county, township) = (division(220822000000), division(220822101000));
        assert_eq!(check_hello(county, township, &hello("220822101000", 1, 9)), Ok(1));
        let refused = |own, certificate, hello| check_hello(own, certificate, &hello).unwrap_err().goodbye();
        let wrong = v1::GoodbyeReason::WrongDivision;
        assert_eq!(refused(county, township, hello("220822102000", 1, 1)), wrong);
        assert_eq!(refused(county, township, hello("220822101", 1, 1)), wrong);
        assert_eq!(refused(county, county, hello("220822000000", 1, 1)), wrong);
        assert_eq!(refused(township, county, hello("220822000000", 1, 1)), wrong);
        let unsupported = v1::GoodbyeReason::UnsupportedProtocol;
        assert_eq!(refused(county, township, hello("220822101000", 2, 9)), unsupported);
        assert_eq!(refused(county, township, hello("220822101000", 0, 0)), unsupported);
    }
}
