//! Tests of the codes and of the table. The table is read again here from its source file, never from itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use proptest::prelude::*;

fn division(text: &str) -> Division {
    Division::parse(text).unwrap()
}

fn entry(code: &str, name: &str, active: bool) -> DivisionEntry {
    DivisionEntry { code: division(code), name: name.to_string(), active }
}

fn codes(list: &[(Division, &str)]) -> Vec<String> {
    list.iter().map(|(code, _)| code.to_string()).collect()
}

/// The rows of the embedded table as the file has them: code and name.
fn rows() -> Vec<(&'static str, &'static str)> {
    let text = include_str!("../../data/divisions.csv");
    text.lines().skip(1).map(|row| row.split_once(',').unwrap()).collect()
}

#[test]
fn reads_every_length_and_prints_twelve_digits() {
    for (text, printed, tier) in [
        ("22", "220000000000", Tier::Province),
        ("2208", "220800000000", Tier::Prefecture),
        ("220822", "220822000000", Tier::County),
        ("220822101", "220822101000", Tier::Township),
        ("220822101202", "220822101202", Tier::Village),
        ("220822000000", "220822000000", Tier::County),
        ("441900", "441900000000", Tier::Prefecture),
        ("441900003", "441900003000", Tier::Township),
        ("350527000000", "350527000000", Tier::County),
    ] {
        let parsed = division(text);
        assert_eq!((parsed.to_string().as_str(), parsed.tier()), (printed, tier));
        assert_eq!(format!("{parsed:?}"), printed);
        assert_eq!(Division::from_code(parsed.code()), Some(parsed));
    }
}

#[test]
fn refuses_what_is_not_a_division() {
    for (text, error) in [
        ("", DivisionError::Length(0)),
        ("2", DivisionError::Length(1)),
        ("22082", DivisionError::Length(5)),
        ("2208221010001", DivisionError::Length(13)),
        ("22 0", DivisionError::NotDigits),
        (" 22", DivisionError::NotDigits),
        ("+2", DivisionError::NotDigits),
        ("２２", DivisionError::NotDigits),
        ("00", DivisionError::NoProvince),
        ("000000000000", DivisionError::NoProvince),
        ("022082210100", DivisionError::NoProvince),
        ("220022", DivisionError::NoPrefecture),
        ("220000101", DivisionError::NoPrefecture),
        ("220000000001", DivisionError::NoPrefecture),
        ("220822000001", DivisionError::NoTownship),
    ] {
        assert_eq!(Division::parse(text), Err(error), "{text}");
    }
    for code in [0, 22, 99_999_999_999, 1_000_000_000_000, u64::MAX, 220_000_000_001] {
        assert_eq!(Division::from_code(code), None, "{code}");
    }
}

#[test]
fn passes_over_missing_tiers() {
    let around = |text: &str| division(text).enclosing().map(|code| code.to_string()).collect::<Vec<_>>();
    assert_eq!(
        around("220822101202"),
        ["220822101202", "220822101000", "220822000000", "220800000000", "220000000000"]
    );
    assert_eq!(around("441900003002"), ["441900003002", "441900003000", "441900000000", "440000000000"]);
    assert_eq!(around("22"), ["220000000000"]);
    assert_eq!(division("441900003002").county(), division("4419"));
    assert_eq!(division("220822101202").county(), division("220822"));
    assert_eq!(division("22").county(), division("22"));
}

#[test]
fn county_tier_home_and_pseudo_prefectures() {
    for without in ["441900003", "441900003002", "442000", "4604", "4419"] {
        assert!(!division(without).has_county_tier(), "{without}");
    }
    for with in ["220822101", "220822101202", "220822", "2208", "22", "419001", "419001001"] {
        assert!(division(with).has_county_tier(), "{with}");
    }
    assert_eq!(division("220822101202").home(), division("220822101"));
    for own in ["220822101", "220822", "2208", "22"] {
        assert_eq!(division(own).home(), division(own));
    }
    for pseudo in ["1101", "1102", "3101", "5002", "4190", "4290", "4690", "6590"] {
        assert!(division(pseudo).is_pseudo_prefecture(), "{pseudo}");
    }
    for real in ["2201", "2202", "4419", "419001", "11", "90"] {
        assert!(!division(real).is_pseudo_prefecture(), "{real}");
    }
}

#[test]
fn tiers_are_ordered_by_height() {
    assert!(Tier::ALL.is_sorted());
    assert!(Tier::Village < Tier::Township && Tier::Prefecture < Tier::Province);
    assert_eq!((Tier::County.label(), Tier::County.name()), ("县级", "county"));
}

#[test]
fn embedded_table_is_complete() {
    let divisions = Divisions::embedded();
    let rows = rows();
    assert_eq!((rows.len(), divisions.len()), (44_699, 44_699));
    let mut tiers = [0; 5];
    for (code, name) in rows {
        let code = division(code);
        assert_eq!(divisions.name(code), Some(name));
        assert!(divisions.known(code) && divisions.active(code));
        tiers[code.tier() as usize] += 1;
        // No row hangs in the air: all that is around it is there too.
        assert!(code.enclosing().all(|around| divisions.known(around)), "{code}");
    }
    // The source lists three prefectures once more as counties, and one county once more as a township.
    assert_eq!(tiers, [0, 41_352 - 1, 2_978 - 3, 342, 31]);
}

#[test]
fn children_skip_missing_tiers_and_headings() {
    let divisions = Divisions::embedded();
    let children = |text: &str| codes(&divisions.children(division(text)));
    assert_eq!(divisions.children(division("220822")).len(), 22);
    assert!(children("4419").iter().all(|code| code.starts_with("441900")));
    assert!(children("4419").contains(&"441900003000".to_string()));
    assert_eq!(children("22").len(), 9);
    assert_eq!(children("11"), children("1101"));
    assert_eq!(children("11").first().map(String::as_str), Some("110101000000"));
    assert!(children("50").contains(&"500229000000".to_string()));
    let henan = children("41");
    assert!(henan.contains(&"410100000000".into()) && henan.contains(&"419001000000".into()));
    assert!(!henan.contains(&"419000000000".into()));
    assert!(children("220822101").is_empty());
}

#[test]
fn full_names_read_like_addresses() {
    let divisions = Divisions::embedded();
    for (code, name) in [
        ("220822101", "吉林省白城市通榆县瞻榆镇"),
        ("220822", "吉林省白城市通榆县"),
        ("441900003", "广东省东莞市东城街道"),
        ("110101", "北京市东城区"),
        ("419001", "河南省济源市"),
        ("1101", "北京市市辖区"),
        ("220822101201", "吉林省白城市通榆县瞻榆镇220822101201"),
    ] {
        assert_eq!(divisions.full_name(division(code)), name);
    }
}

#[test]
fn overlay_adds_renames_and_retires() {
    let mut divisions = Divisions::embedded();
    let township = division("220822101");
    let before = divisions.children(division("220822")).len();
    assert!(!divisions.villages_known(township));

    divisions.insert(entry("220822101202", "乙村", true));
    divisions.insert(entry("220822101201", "甲村", true));
    divisions.insert(entry("220822102201", "别处村", true));
    assert_eq!(
        divisions.villages(township).iter().map(|(_, name)| *name).collect::<Vec<_>>(),
        ["甲村", "乙村"]
    );
    assert_eq!(divisions.children(township), divisions.villages(township));
    assert_eq!((divisions.villages_known(township), divisions.len()), (true, 44_702));
    assert_eq!(divisions.full_name(division("220822101201")), "吉林省白城市通榆县瞻榆镇甲村");
    // Neither a clone nor the embedded table sees what is changed later.
    let earlier = divisions.clone();

    divisions.insert(entry("220822101", "新名镇", true));
    assert_eq!(divisions.name(township), Some("新名镇"));
    divisions.insert(entry("220822101", "", false));
    assert_eq!(divisions.name(township), Some("新名镇"));
    assert!(divisions.known(township) && !divisions.active(township));
    divisions.insert(entry("220822101201", "", false));
    divisions.insert(entry("220822101202", "", false));
    assert!(!divisions.villages_known(township));
    assert_eq!(divisions.children(division("220822")).len(), before - 1);
    assert_eq!(divisions.len(), 44_702);

    assert_eq!(earlier.name(township), Some("瞻榆镇"));
    assert_eq!(earlier.villages(township).len(), 2);
    assert_eq!(Divisions::embedded().len(), 44_699);
}

#[test]
fn overlay_comes_in_anywhere() {
    let mut divisions = Divisions::embedded();
    // Before the first row, after the last, and a prefecture in a province that the table has no rows for.
    for code in ["10", "99", "7101", "71", "220801"] {
        divisions.insert(entry(code, "新", true));
    }
    assert_eq!(codes(&divisions.children(division("71"))), ["710100000000"]);
    assert!(codes(&divisions.children(division("2208"))).contains(&"220801000000".to_string()));
    assert!(divisions.children(division("99")).is_empty());
    // What a retired division contains moves up to the next one around it.
    divisions.insert(entry("220822", "", false));
    let prefecture = codes(&divisions.children(division("2208")));
    assert!(
        prefecture.contains(&"220822101000".to_string()) && !prefecture.contains(&"220822000000".to_string())
    );
}

/// Any division, close enough together that containment is common.
fn any_division() -> impl Strategy<Value = Division> {
    let part = |most: u64| prop_oneof![Just(0), 1..=most];
    (10..=12_u64, part(2), part(2), part(2), part(2)).prop_filter_map("form", |(p, c, a, t, v)| {
        Division::from_code((((p * 100 + c) * 100 + a) * 1_000 + t) * 1_000 + v)
    })
}

proptest! {
    #[test]
    fn prints_and_reads_back(code in 100_000_000_000_u64..1_000_000_000_000) {
        if let Some(division) = Division::from_code(code) {
            let printed = division.to_string();
            prop_assert_eq!(printed.len(), 12);
            prop_assert_eq!(printed.parse(), Ok(division));
            prop_assert_eq!(Division::try_from(division.code()), Ok(division));
        }
    }

    #[test]
    fn never_fails_on_any_text(text in "\\PC{0,14}|[0-9]{0,14}") {
        if let Ok(division) = Division::parse(&text) {
            prop_assert!(division.to_string().starts_with(&text));
        }
    }

    #[test]
    fn contains_is_a_partial_order(a in any_division(), b in any_division(), c in any_division()) {
        prop_assert!(a.contains(a) && !a.strictly_contains(a));
        prop_assert!(!(a.contains(b) && b.contains(a)) || a == b);
        prop_assert!(!(a.contains(b) && b.contains(c)) || a.contains(c));
        prop_assert_eq!(a.contains(b), b.enclosing().any(|around| around == a));
        prop_assert_eq!(a.strictly_contains(b), a != b && a.contains(b));
        prop_assert_eq!(a.meets(b), a.contains(b) || b.contains(a));
        // The definition in words: the same significant digits.
        let digits = match a.tier() {
            Tier::Province => 2,
            Tier::Prefecture => 4,
            Tier::County => 6,
            Tier::Township => 9,
            Tier::Village => 12,
        };
        prop_assert_eq!(a.contains(b), b.to_string().starts_with(&a.to_string()[..digits]));
    }

    #[test]
    fn enclosing_rises_without_gaps(a in any_division()) {
        let around: Vec<Division> = a.enclosing().collect();
        prop_assert_eq!(around[0], a);
        prop_assert_eq!(around[around.len() - 1].tier(), Tier::Province);
        prop_assert!(around.windows(2).all(|pair| pair[0].tier() < pair[1].tier()));
        for tier in Tier::ALL {
            let there = a.truncate(tier);
            prop_assert!(there.tier() >= tier && around.contains(&there));
            prop_assert!(Division::from_code(there.code()).is_some());
        }
        prop_assert!(a.home().tier() > Tier::Village);
    }

    #[test]
    fn children_are_the_nearest_below(
        list in proptest::collection::vec((any_division(), any::<bool>()), 0..60),
        parent in any_division(),
    ) {
        // Provinces 10 and 12 to 19 are free in the embedded table, so only the overlay is in play there.
        let own = |code: &Division| code.code() / 10_000_000_000 == 10;
        prop_assume!(own(&parent));
        let mut divisions = Divisions::embedded();
        let mut active = std::collections::BTreeMap::new();
        for (code, on) in list.into_iter().filter(|(code, _)| own(code)) {
            divisions.insert(DivisionEntry { code, name: code.to_string(), active: on });
            active.insert(code, on);
        }
        let shown: Vec<Division> = active.into_iter().filter(|(_, on)| *on).map(|(code, _)| code).collect();
        let inside: Vec<Division> = shown.into_iter().filter(|code| parent.strictly_contains(*code)).collect();
        let nearest = inside.iter().filter(|code| !inside.iter().any(|other| other.strictly_contains(**code)));
        let listed: Vec<Division> = divisions.children(parent).into_iter().map(|(code, _)| code).collect();
        prop_assert_eq!(listed, nearest.copied().collect::<Vec<_>>());
    }
}
