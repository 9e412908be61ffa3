//! Messages as lines of words, and back.

/// A client's message: `Q select 1`, `P name text`, `B portal name values…`,
/// `D S name`, `E portal rows`, `C P portal`, `S`, `H`, `X`, `d text`, `c`,
/// `f text`. A dash is the empty name, `raw` takes hexadecimal.
pub(crate) fn client(line: &str) -> Vec<u8> {
    let (tag, rest) = line.split_once(' ').unwrap_or((line, ""));
    let words: Vec<&str> = rest.split(' ').collect();
    let name = |at: usize| words.get(at).map_or("", |word| if *word == "-" { "" } else { word });
    let body = match tag {
        "raw" => return hex(rest),
        "Q" | "f" => format!("{rest}\0").into_bytes(),
        "d" => format!("{rest}\n").into_bytes(),
        "P" => {
            let text = rest.split_once(' ').map_or("", |(_, text)| text);
            format!("{}\0{text}\0\0\0", name(0)).into_bytes()
        }
        "B" => {
            let mut body = format!("{}\0{}\0\0\0", name(0), name(1)).into_bytes();
            let values = words.get(2..).unwrap_or_default();
            body.extend_from_slice(&(values.len() as u16).to_be_bytes());
            for value in values {
                body.extend_from_slice(&(value.len() as u32).to_be_bytes());
                body.extend_from_slice(value.as_bytes());
            }
            body.extend_from_slice(&[0, 0]);
            body
        }
        "D" | "C" => format!("{}{}\0", words[0], name(1)).into_bytes(),
        "E" => {
            let mut body = format!("{}\0", name(0)).into_bytes();
            body.extend_from_slice(
                &words.get(1).map_or(0, |n| n.parse().unwrap_or(0_u32)).to_be_bytes(),
            );
            body
        }
        _ => Vec::new(),
    };
    frame(tag, &body)
}

/// A server's message: `Z I`, `C tag`, `T names…`, `D values…`, `E code text`,
/// `F code text` (FATAL), `N text`, `S name value`, `t count`, or a bare tag.
pub(crate) fn server(line: &str) -> Vec<u8> {
    let (tag, rest) = line.split_once(' ').unwrap_or((line, ""));
    let words: Vec<&str> = rest.split(' ').filter(|word| !word.is_empty()).collect();
    let body = match tag {
        "Z" => rest.as_bytes().to_vec(),
        "C" => format!("{rest}\0").into_bytes(),
        "S" => format!("{}\0{}\0", words[0], words.get(1).unwrap_or(&"")).into_bytes(),
        "T" => {
            let mut body = (words.len() as u16).to_be_bytes().to_vec();
            for name in words {
                body.extend_from_slice(name.as_bytes());
                body.extend_from_slice(&[0; 19]);
            }
            body
        }
        "D" => {
            let mut body = (words.len() as u16).to_be_bytes().to_vec();
            for value in words {
                body.extend_from_slice(&(value.len() as u32).to_be_bytes());
                body.extend_from_slice(value.as_bytes());
            }
            body
        }
        "t" => {
            let count: u16 = rest.parse().unwrap_or(0);
            let mut body = count.to_be_bytes().to_vec();
            body.extend((0..count).flat_map(|_| 23_u32.to_be_bytes()));
            body
        }
        "E" | "F" => {
            let severity = if tag == "F" { "FATAL" } else { "ERROR" };
            let (code, text) = rest.split_once(' ').unwrap_or((rest, ""));
            let stale =
                if text.starts_with("cached plan") { "RRevalidateCachedQuery\0" } else { "" };
            let (text, detail) = match text.split_once(" | ") {
                Some((text, detail)) => (text, format!("D{detail}\0")),
                None => (text, String::new()),
            };
            let body = format!("S{severity}\0V{severity}\0C{code}\0M{text}\0{detail}{stale}\0");
            return frame("E", body.as_bytes());
        }
        "N" => format!("SNOTICE\0VNOTICE\0C00000\0M{rest}\0\0").into_bytes(),
        "G" | "H" => vec![0, 0, 1, 0, 0],
        "d" => format!("{rest}\n").into_bytes(),
        _ => Vec::new(),
    };
    frame(tag, &body)
}

fn frame(tag: &str, body: &[u8]) -> Vec<u8> {
    let mut out = tag.as_bytes()[..1].to_vec();
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// The client, or the router in its place.
    Client,
    /// The server, or the router in its place.
    Server,
}

/// Each message of `bytes` as a line.
pub(crate) fn lines(mut bytes: &[u8], speaker: Speaker) -> Vec<String> {
    let mut out = Vec::new();
    while bytes.len() >= 5 {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        let Some(body) = bytes.get(5..=length) else { break };
        out.push(line(char::from(bytes[0]), body, speaker));
        bytes = &bytes[length + 1..];
    }
    if !bytes.is_empty() {
        out.push(format!("{} bytes of a message", bytes.len()));
    }
    out
}

fn line(tag: char, body: &[u8], speaker: Speaker) -> String {
    let text = String::from_utf8_lossy(body);
    let parts: Vec<&str> = text.split('\0').collect();
    let name =
        |at: usize| parts.get(at).map_or("-", |part| if part.is_empty() { "-" } else { part });
    let words = match (speaker, tag) {
        (Speaker::Client, 'Q' | 'f') | (Speaker::Server, 'C') => parts[0].to_owned(),
        (_, 'd') => text.trim_end().to_owned(),
        (Speaker::Client, 'P') => format!("{} {}", name(0), parts[1]),
        (Speaker::Client, 'B') => {
            let portal = body.iter().position(|b| *b == 0).unwrap_or(0) + 1;
            let statement = body[portal..].iter().position(|b| *b == 0).unwrap_or(0) + 1;
            format!("{} {}{}", name(0), name(1), values(&body[portal + statement..]))
        }
        (Speaker::Client, 'D' | 'C') => {
            let rest = &parts[0][1..];
            format!("{} {}", &parts[0][..1], if rest.is_empty() { "-" } else { rest })
        }
        (Speaker::Client, 'E') => {
            let rows = u32::from_be_bytes(body[body.len() - 4..].try_into().unwrap());
            format!("{} {rows}", name(0))
        }
        (Speaker::Server, 'E' | 'N') => {
            let field = |code| parts.iter().find_map(|part| part.strip_prefix(code)).unwrap_or("");
            let hint = field('H');
            let hint = if hint.is_empty() { String::new() } else { format!(" | {hint}") };
            let detail = field('D');
            let detail = if detail.is_empty() { String::new() } else { format!(" | {detail}") };
            format!("{} {} {}{detail}{hint}", field('V'), field('C'), field('M'))
        }
        (Speaker::Server, 'D') => {
            let mut rest = body.get(2..).unwrap_or_default();
            let mut out = Vec::new();
            while rest.len() >= 4 {
                let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
                out.push(String::from_utf8_lossy(&rest[4..4 + length]).into_owned());
                rest = &rest[4 + length..];
            }
            out.join(" ")
        }
        (Speaker::Server, 'T') => {
            let mut rest = body.get(2..).unwrap_or_default();
            let mut out = Vec::new();
            while let Some(end) = rest.iter().position(|b| *b == 0) {
                out.push(String::from_utf8_lossy(&rest[..end]).into_owned());
                rest = rest.get(end + 19..).unwrap_or_default();
            }
            out.join(" ")
        }
        (Speaker::Server, 't') => u16::from_be_bytes([body[0], body[1]]).to_string(),
        (Speaker::Server, 'S') => format!("{} {}", parts[0], parts[1]),
        (Speaker::Server, 'Z') => text.into_owned(),
        _ => String::new(),
    };
    format!("{tag} {words}").trim_end().to_owned()
}

/// A Bind's values, behind its names.
fn values(mut rest: &[u8]) -> String {
    let formats = u16::from_be_bytes([rest[0], rest[1]]) as usize;
    rest = &rest[2 + formats * 2..];
    let count = u16::from_be_bytes([rest[0], rest[1]]);
    rest = &rest[2..];
    let mut out = String::new();
    for _ in 0..count {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        out.push(' ');
        out.push_str(&String::from_utf8_lossy(&rest[4..4 + length]));
        rest = &rest[4 + length..];
    }
    out
}
