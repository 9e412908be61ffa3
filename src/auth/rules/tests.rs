//! Rules against connections, and files that are none.

use proptest::prelude::*;

use super::*;

fn rules(text: &str) -> Rules {
    Rules::parse(text, "hba").unwrap()
}

fn caller<'a>(database: &'a str, user: &'a str, address: Option<&str>) -> Caller<'a> {
    let address = address.map(|text| text.parse().unwrap());
    Caller { address, encrypted: false, database, replication: false, user }
}

#[test]
fn first_rule_that_fits_decides_and_without_one_there_is_none() {
    let rules = rules(
        "# comment\n\
         local all all trust\n\
         host app, \"all\" alice,bob 10.0.0.0/8 scram-sha-256 # comment\n\
         host app alice 10.1.0.0 255.255.0.0 reject\n\
         host sameuser all ::1/128 \\\n    md5\n\
         hostssl app carol all cert\n\
         hostnossl app carol all reject\n\
         host replication all all password\n",
    );
    let line = |caller: Caller<'_>| rules.find(&caller).map(|rule| rule.line);
    assert_eq!(line(caller("app", "alice", None)), Some(2));
    assert_eq!(line(caller("app", "alice", Some("10.1.2.3"))), Some(3), "the first one");
    assert_eq!(line(caller("app", "mallory", Some("10.1.2.3"))), None);
    assert_eq!(line(caller("all", "bob", Some("10.1.2.3"))), Some(3), "a name in quotes");
    assert_eq!(line(caller("other", "bob", Some("10.1.2.3"))), None);
    assert_eq!(line(caller("app", "alice", Some("192.0.2.1"))), None);
    assert_eq!(line(caller("dora", "dora", Some("::1"))), Some(5));
    assert_eq!(line(caller("dora", "eve", Some("::1"))), None);
    let carol = caller("app", "carol", Some("192.0.2.1"));
    assert_eq!(line(carol), Some(8));
    assert_eq!(line(Caller { encrypted: true, ..carol }), Some(7));
    let physical = Caller { replication: true, ..caller("app", "alice", Some("10.0.0.1")) };
    assert_eq!(line(physical), Some(9), "of no database");
    assert_eq!(line(Caller { address: None, ..physical }), None, "all is not replication");
    assert_eq!(rules.len(), 7);
}

#[test]
fn methods_and_options_are_read() {
    let rules = rules(
        "hostssl all all all cert map=people\n\
         hostssl all all all scram-sha-256 clientcert=verify-ca\n\
         hostssl all all all trust clientcert=verify-full clientname=CN\n",
    );
    let [first, second, third] = &rules.0[..] else { panic!() };
    assert_eq!((first.method, first.certificate), (Method::Cert, Certificate::OfUser));
    assert_eq!(first.map.as_deref(), Some("people"));
    assert_eq!((second.method, second.certificate), (Method::Scram, Certificate::Trusted));
    assert_eq!((third.method, third.certificate), (Method::Trust, Certificate::OfUser));
    assert_eq!(rules.maps().collect::<Vec<_>>(), [(1, "people")]);
    assert_eq!(rules.first_with_certificate(), Some(1));
}

#[test]
fn what_is_wrong_or_not_supported_is_named_with_its_place() {
    for (text, place, reason) in [
        ("hots all all all trust", (1, 1), "a rule begins with"),
        ("\n  host all", (2, 3), "ends before its users"),
        ("host all all", (1, 1), "ends before its address"),
        ("host all all all", (1, 1), "ends before its method"),
        ("host all all 10.0.0.0 trust", (1, 14), "needs a mask"),
        ("host all all 10.0.0.0 1.2.3.4 trust", (1, 14), "no mask"),
        ("host all all 10.0.0.0/40 trust", (1, 14), "no address/bits"),
        ("host all all db.example trust", (1, 14), "host names"),
        ("host all all samenet trust", (1, 14), "samenet"),
        ("host all all 10.0.0.0/8,11.0.0.0/8 trust", (1, 14), "one address"),
        ("host all +staff all trust", (1, 10), "name the users"),
        ("host /^a all all trust", (1, 6), "regular expressions"),
        ("host all @users all trust", (1, 10), "lists in files"),
        ("host samerole all all trust", (1, 6), "samerole"),
        ("local all all peer", (1, 15), "method peer"),
        ("local all all truts", (1, 15), "no method"),
        ("host all all all cert", (1, 18), "hostssl"),
        ("hostssl all all all trust map=x", (1, 21), "needs the method cert"),
        ("hostssl all all all trust pamservice=x", (1, 27), "no option"),
        ("hostssl all all all cert map=", (1, 26), "no option"),
        ("hostgssenc all all all trust", (1, 1), "GSSAPI"),
        ("include other.conf", (1, 1), "include"),
        ("local \"all all trust", (1, 7), "not closed"),
    ] {
        let problems = Rules::parse(text, "hba").unwrap_err();
        let first = &problems[0];
        assert_eq!((first.line, first.column), place, "{text}: {first}");
        assert!(first.reason.contains(reason), "{text}: {first}");
    }
    let two = Rules::parse("host all\nlocal all all trust\nhost", "hba").unwrap_err();
    assert_eq!(two.iter().map(|p| p.line).collect::<Vec<_>>(), [1, 3], "all of them");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(
        text in "([a-z+/@\"#,\\\\ \n=0-9.:]{0,12}[ \n]?){0,12}",
        lines in prop::collection::vec(
            "(local|host|hostssl) (all|a,b|\"x y\") (all|u) (all|1.2.3.4/8|::1/128)? (trust|md5)",
            0..4,
        ),
    ) {
        for text in [text.clone(), lines.join("\n"), format!("{}\n{text}", lines.join("\n"))] {
            match Rules::parse(&text, "hba") {
                Ok(rules) => prop_assert!(rules.len() <= text.lines().count()),
                Err(problems) => prop_assert!(!problems.is_empty()),
            }
            drop(NameMaps::parse(&text, "ident"));
        }
    }
}

#[test]
fn names_of_certificates_are_users_by_a_map_only() {
    let maps = NameMaps::parse(
        "# map name user\npeople \"Alice A\" alice\npeople ops all\nother bob carol\n",
        "ident",
    )
    .unwrap();
    assert!(maps.allow(None, "alice", "alice"));
    assert!(!maps.allow(None, "alice", "bob"));
    assert!(maps.allow(Some("people"), "Alice A", "alice"));
    assert!(!maps.allow(Some("people"), "Alice A", "bob"));
    assert!(!maps.allow(Some("people"), "alice", "alice"), "not in the map");
    assert!(maps.allow(Some("people"), "ops", "bob"));
    assert!(!maps.allow(Some("people"), "bob", "carol"), "another map's");
    assert!(!maps.allow(Some("none"), "alice", "alice"));
    assert!(maps.has("other") && !maps.has("none"));
    for text in ["people alice", "m /^(.*)$ x", "m x +g", "m a b c"] {
        assert_eq!(NameMaps::parse(text, "ident").unwrap_err().len(), 1, "{text}");
    }
}
