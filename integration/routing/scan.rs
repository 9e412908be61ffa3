//! Tokens are the server's own: it tells, by values, column names and error
//! messages, how it cut a text.

use keyway::sql::reading::{Word, spans, words};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::generate::Dice;
use super::{cluster, connect, run};

#[test]
fn texts_are_cut_as_the_server_cuts_them() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    println!("SEED={seed}");
    let cluster = cluster();
    run(async {
        let client = connect(&cluster.primary(1).url).await;
        let mut dice = Dice::new(seed);
        let (mut values, mut operators, mut names) = (0, 0, 0);
        for _ in 0..1500 {
            values += check_constants(&client, &mut dice).await;
            operators += check_operators(&client, &mut dice).await;
            names += check_name(&client, &mut dice).await;
        }
        println!("{values} constants, {operators} operators, {names} names");
        assert!(values > 2000 && operators > 300 && names > 700);
    });
}

/// Whatever stands beside whatever: the server says where each token begins and ends.
#[test]
fn soups_are_cut_as_the_server_cuts_them() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(12);
    let count = std::env::var("SOUPS").ok().and_then(|count| count.parse().ok()).unwrap_or(800);
    println!("SEED={seed}");
    let cluster = cluster();
    run(async {
        let client = connect(&cluster.primary(1).url).await;
        let mut dice = Dice::new(seed);
        let (mut cut, mut refused, mut open) = (0, 0, 0);
        for _ in 0..count {
            let text = soup(&mut dice);
            let Ok(tokens) = spans(text.as_bytes()) else {
                open += 1;
                assert!(answer(&client, &text).await.is_err(), "the server reads {text}");
                continue;
            };
            // Behind a whole statement no token fits, so the server names it; what
            // stands before it, blanks and comments, is the server's to skip.
            let mut before = 0;
            for (start, end) in tokens {
                let (rest, token) = (&text[before..], &text[start..end]);
                before = end;
                if token == ";" {
                    continue;
                }
                let asked = format!("listen a {rest}");
                let (code, message) = answer(&client, &asked).await.expect_err(&asked);
                let Some(named) = message.strip_prefix("syntax error at or near \"") else {
                    // No token to the server: nothing runs.
                    assert!(
                        ["42601", "22021", "22P06", "22023"].contains(&&*code),
                        "{message}: {asked}"
                    );
                    refused += 1;
                    continue;
                };
                // The server takes N for the name of a type that the string is cast to.
                let national = token.strip_prefix(['n', 'N']).is_some_and(|s| s.starts_with('\''));
                let token = if national { &token[..1] } else { token };
                assert_eq!(named.strip_suffix('"'), Some(token), "SEED={seed}: {asked}");
                cut += 1;
            }
        }
        println!("{cut} tokens cut alike, {refused} refused by the server, {open} open texts");
        assert!(cut > 2 * count && refused < cut / 10 && open < count / 2);
    });
}

fn soup(dice: &mut Dice) -> String {
    let mut text = String::new();
    while text.is_empty() || !dice.one_in(9) {
        match dice.pick(&["piece", "piece", "piece", "constant", "operator", "blank"]) {
            "piece" => text += dice.pick(PIECES),
            "constant" => text += &constant(dice),
            "operator" => {
                text += dice.pick(OPERATORS);
                text += dice.pick(OPERATORS);
                text += dice.pick(OPERATORS);
            }
            _ => text += dice.pick(BLANKS),
        }
        text += dice.pick(&["", "", " ", "\n"]);
    }
    text
}

/// `SELECT constant, …`: the server shows each value.
async fn check_constants(client: &Client, dice: &mut Dice) -> usize {
    let mut text = "select ".to_owned();
    let mut count = 0;
    loop {
        text += dice.pick(BLANKS);
        text += &constant(dice);
        text += dice.pick(BLANKS);
        count += 1;
        if dice.one_in(3) || count == 6 {
            break;
        }
        text += ",";
    }
    let answer = answer(client, &text).await;
    let Ok(ours) = words(text.as_bytes()) else {
        assert!(answer.is_err(), "the server reads {text}");
        return 0;
    };
    let ours: Vec<Option<String>> = ours
        .into_iter()
        .filter_map(|word| match word {
            Word::Constant(value) => Some(value),
            Word::Name(_) | Word::Operator(_) | Word::Mark(_) => None,
        })
        .collect();
    match answer {
        Ok((_, theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{text}: {ours:?} / {theirs:?}");
            for (ours, theirs) in ours.iter().zip(&theirs) {
                if let Some(ours) = ours {
                    assert_eq!(ours, theirs, "{text}");
                }
            }
            theirs.len()
        }
        // A value that the encoding can't hold, which we leave to the server too,
        // or two constants in a row.
        Err((code, message)) => {
            let open = ours.iter().any(Option::is_none);
            assert!(open || code == "42601", "{code} {message}: {text}");
            0
        }
    }
}

fn constant(dice: &mut Dice) -> String {
    let mut inside = String::new();
    while !dice.one_in(4) {
        inside += dice.pick(INSIDES);
    }
    match dice.pick(&["plain", "plain", "escape", "dollar", "tag", "more", "unicode", "number"]) {
        "plain" => format!("'{inside}'"),
        "escape" => {
            while !dice.one_in(3) {
                inside += dice.pick(ESCAPES);
            }
            format!("{}'{inside}'", dice.pick(&["E", "e"]))
        }
        "dollar" => format!("$${}$$", inside.replace('$', "")),
        "tag" => format!("$t_ä${inside}$t_ä$"),
        "more" => {
            let between = dice.pick(&["\n", " \n ", " -- c ' \n", "\n-- c\n\t", " ", "/* c */\n"]);
            format!("'{inside}'{between}'{inside}'")
        }
        "unicode" => format!("U&'{}'", inside.replace('\\', "")),
        _ => dice.pick(&["0", "42", "1.5", "123456789012", "1.50"]).to_owned(),
    }
    .replace("''''", "''")
}

/// `SELECT 1 operator 2`: the server names an operator that it doesn't have.
async fn check_operators(client: &Client, dice: &mut Dice) -> usize {
    let mut operator = String::new();
    while operator.is_empty() || !dice.one_in(3) {
        operator += dice.pick(&[
            "+", "-", "*", "/", "<", ">", "=", "~", "!", "@", "#", "%", "^", "&", "|", "?", "`",
        ]);
    }
    let text = format!("select 1 {operator} 2\n*/ 3");
    let text = if operator.contains("/*") { text } else { format!("select 1 {operator} 2\n") };
    let ours = words(text.as_bytes());
    match answer(client, &text).await {
        Err((code, message)) if code == "42883" => {
            let named = message.split(": ").nth(1).unwrap_or_default().to_owned();
            let named = named.split_whitespace().find(|w| !w.starts_with(char::is_alphabetic));
            let ours: Vec<String> = ours
                .unwrap_or_else(|error| panic!("{error}: {text}"))
                .into_iter()
                .filter_map(|word| match word {
                    Word::Operator(operator) => Some(operator),
                    Word::Name(_) | Word::Constant(_) | Word::Mark(_) => None,
                })
                .collect();
            let named = named.unwrap_or_else(|| panic!("{message}: {text}"));
            assert!(ours.iter().any(|one| one == named), "{text}: {ours:?} / {message}");
            1
        }
        Err(_) | Ok(_) => 0,
    }
}

/// `SELECT 1 AS name`: the server shows the name.
async fn check_name(client: &Client, dice: &mut Dice) -> usize {
    let mut name = dice.pick(&["a", "Z", "_", "é", "Ä", "日", "aB"]).to_owned();
    while !dice.one_in(9) {
        name += dice.pick(&["a", "Z", "9", "$", "_", "ß", "É", "日本", "aaaaaaaaaaaaaaaa"]);
    }
    if dice.one_in(3) {
        name = format!("\"{name}{}\"", dice.pick(&["", " ", "\"\"", "'", "--", "/*"]));
    }
    let text = format!("select 1 as {name} from (values (1)) x");
    let ours = words(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    let (names, _) =
        answer(client, &text).await.unwrap_or_else(|error| panic!("{error:?}: {text}"));
    assert_eq!(ours.get(3), Some(&Word::Name(names[0].clone())), "{text}");
    1
}

/// Names and values of the one row, or the error's code and message.
async fn answer(
    client: &Client,
    text: &str,
) -> Result<(Vec<String>, Vec<String>), (String, String)> {
    let messages = client.simple_query(text).await.map_err(|error| {
        let error = error.as_db_error().expect("the server answers");
        (error.code().code().to_owned(), error.message().to_owned())
    })?;
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            let names = row.columns().iter().map(|column| column.name().to_owned()).collect();
            let values =
                (0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned()).collect();
            return Ok((names, values));
        }
    }
    Ok((Vec::new(), Vec::new()))
}

const PIECES: &[&str] = &[
    "select",
    "NOT",
    "nulls",
    "with",
    "a",
    "é",
    "日本",
    "a$1",
    "_x",
    "\"q\"",
    "\"a\"\"b\"",
    "\"--\"",
    "\"/*\"",
    "U&\"d\\0061t\"",
    "U&'\\0061'",
    "u&",
    "e",
    "n'x'",
    "B'01'",
    "x'1F'",
    "b",
    "$1 ",
    "$2::int ",
    "$a",
    "1 ",
    "1.5 ",
    ".5 ",
    "1. ",
    "1e10 ",
    "1.5E-3 ",
    "1..2 ",
    "::",
    ":=",
    "=>",
    "..",
    ".",
    ":",
    "[",
    "]",
    "(",
    ")",
    ",",
    ";",
    "/* a /* ' */ \" */",
    "/**/",
    "/*/**/*/",
    "--/*\n",
    "-- $$ '\n",
    "$$;$$",
    "$x$ $$ $x$",
    "?",
    "?|",
    "?&",
    "@>",
    "->>",
    "#>>",
    "!=",
    "<>",
    "<=",
    "E'\\''",
    "'--'",
    "'/*'",
    "*/",
    "*",
];
const OPERATORS: &[&str] = &[
    "", "", "+", "-", "*", "/", "<", ">", "=", "~", "!", "@", "#", "%", "^", "&", "|", "?", "`",
    "--", "/*",
];
const BLANKS: &[&str] =
    &["", " ", "\n", "\t\r\n", "/* c */", "/* ' /* \" */ $$ */", "-- ' $$\n", "\x0C", " /**/ "];
const INSIDES: &[&str] = &[
    "a", "B ", "''", "\\", "\n", "--", "/*", "*/", "$", "$t$", "\"", ";", "é", "日", "\t", "E",
    "$1",
];
const ESCAPES: &[&str] =
    &["\\n", "\\'", "\\\\", "\\x41", "\\101", "\\u00e9", "\\q", "\\xff", "\\t", "\\U0001F600"];
