//! What URLs a sitemap or a list names (<https://www.sitemaps.org/protocol.html>). Pure: reads no files and asks nobody.

use std::fmt;

use crate::output::escape;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Pages to ask for.
    Pages(Vec<String>),
    /// Other sitemaps to read.
    Sitemaps(Vec<String>),
}

/// Why it cannot be read, and in which line, if that is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) line: Option<usize>,
    pub(super) why: String,
}

impl Unreadable {
    fn new(why: impl Into<String>) -> Self {
        Self { line: None, why: why.into() }
    }

    fn at(line: usize, why: impl Into<String>) -> Self {
        Self { line: Some(line), why: why.into() }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// Reads XML if it begins like that, else a list.
pub(super) fn read(bytes: &[u8]) -> Result<Named, Unreadable> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::new("it is not UTF-8"))?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('<') { sitemap(text) } else { list(text).map(Named::Pages) }
}

/// One URL a line.
fn list(text: &str) -> Result<Vec<String>, Unreadable> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| checked(line, number)).collect()
}

/// As much of a line as is needed to find it.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut shown: String = text.chars().take(CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("\"{}\"", escape(&shown))
}

/// A URL that can be asked for.
fn checked(text: &str, line: usize) -> Result<String, Unreadable> {
    let is_url = text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri
                .authority()
                .is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
    });
    // A fragment is the client's own: no server sees it.
    let text = text.split('#').next().unwrap_or_default();
    if is_url {
        Ok(text.to_owned())
    } else {
        Err(Unreadable::at(line, format!("{} is not an http:// or https:// URL", shown(text))))
    }
}

/// The `loc` of each `url` or `sitemap`. Reads just the XML that there is in sitemaps: elements, comments, CDATA and
/// entities of characters; a document type, which could define more, is refused.
fn sitemap(text: &str) -> Result<Named, Unreadable> {
    let mut reader = Reader { text, at: 0 };
    // The prefix of the sitemap's own elements: those of others, such as image:loc, are not pages.
    let mut root: Option<(&str, bool)> = None;
    let mut found = Vec::new();
    let mut within: Option<(usize, String)> = None;
    while let Some(token) = reader.next()? {
        let prefix = root.map(|(prefix, _)| prefix);
        match token {
            Token::Open(name) => match prefix {
                None => {
                    let (prefix, local) = split(name);
                    root = Some(match local {
                        "urlset" => (prefix, false),
                        "sitemapindex" => (prefix, true),
                        _ => {
                            return Err(Unreadable::at(
                                reader.line(),
                                "is neither a <urlset> nor a <sitemapindex>",
                            ));
                        }
                    });
                }
                Some(prefix) if split(name) == (prefix, "loc") => {
                    within = Some((reader.line(), String::new()))
                }
                Some(_) => {}
            },
            Token::Close(name) => {
                if prefix.is_some_and(|prefix| split(name) == (prefix, "loc"))
                    && let Some((line, url)) = within.take()
                {
                    found.push(checked(url.trim(), line)?);
                }
            }
            Token::Text(text) => {
                if let Some((line, url)) = &mut within {
                    unescape(text, url).map_err(|why| Unreadable::at(*line, why))?;
                }
            }
            Token::Plain(text) => {
                if let Some((_, url)) = &mut within {
                    url.push_str(text);
                }
            }
        }
    }
    if within.is_some() {
        return Err(Unreadable::at(reader.line(), "ends within a <loc>"));
    }
    match root {
        Some((_, true)) => Ok(Named::Sitemaps(found)),
        Some((_, false)) => Ok(Named::Pages(found)),
        None => Err(Unreadable::new("there is no <urlset> and no <sitemapindex> in it")),
    }
}

/// A name's prefix and the rest of it.
fn split(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or(("", name))
}

/// A piece of XML.
enum Token<'a> {
    Open(&'a str),
    Close(&'a str),
    /// With entities in it.
    Text(&'a str),
    /// As it is.
    Plain(&'a str),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// The line that is being read.
    fn line(&self) -> usize {
        1 + self.text.get(..self.at).unwrap_or_default().matches('\n').count()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// What comes before `end`, behind which it goes on.
    fn until(&mut self, end: &str, what: &str) -> Result<&'a str, Unreadable> {
        let rest = self.rest();
        let Some((before, _)) = rest.split_once(end) else {
            return Err(Unreadable::at(self.line(), format!("{what} has no end")));
        };
        self.at += before.len() + end.len();
        Ok(before)
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, Unreadable> {
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                return Ok(None);
            }
            let Some(inner) = rest.strip_prefix('<') else {
                let text = rest.split('<').next().unwrap_or_default();
                self.at += text.len();
                return Ok(Some(Token::Text(text)));
            };
            if inner.starts_with("!--") {
                self.at += 4;
                self.until("-->", "a comment")?;
            } else if inner.starts_with("![CDATA[") {
                self.at += 9;
                return self.until("]]>", "a CDATA section").map(Token::Plain).map(Some);
            } else if inner.starts_with('?') {
                self.until("?>", "a processing instruction")?;
            } else if inner.starts_with('!') {
                return Err(Unreadable::at(self.line(), "has a document type, which is not read here"));
            } else {
                return self.tag().map(Some);
            }
        }
    }

    /// A tag, up to the `>` that is in no attribute's value. One that is empty opens nothing.
    fn tag(&mut self) -> Result<Token<'a>, Unreadable> {
        let rest = self.rest();
        let mut quote = None;
        let end = rest.char_indices().find(|(_, char)| match (quote, char) {
            (None, '"' | '\'') => {
                quote = Some(*char);
                false
            }
            (Some(open), char) => {
                if open == *char {
                    quote = None;
                }
                false
            }
            (None, char) => *char == '>',
        });
        let Some((end, _)) = end else { return Err(Unreadable::at(self.line(), "a tag has no end")) };
        let inner = rest.get(1..end).unwrap_or_default();
        self.at += end + 1;
        let name = |text: &'a str| text.split(|char: char| char.is_whitespace()).next().unwrap_or_default();
        Ok(match (inner.strip_prefix('/'), inner.strip_suffix('/')) {
            (Some(closed), _) => Token::Close(name(closed)),
            (None, Some(_)) => Token::Plain(""),
            (None, None) => Token::Open(name(inner)),
        })
    }
}

/// Text with its entities read.
fn unescape(text: &str, to: &mut String) -> Result<(), String> {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        to.push_str(before);
        let (entity, after) = after.split_once(';').ok_or("has an & that begins no entity: write &amp;")?;
        let number = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        let char = match entity {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => match (entity.strip_prefix("#x"), entity.strip_prefix('#')) {
                (Some(digits), _) => number(digits, 16),
                (None, Some(digits)) => number(digits, 10),
                (None, None) => None,
            },
        };
        to.push(char.ok_or("has an entity that is not one of XML's own")?);
        rest = after;
    }
    to.push_str(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(text: &str) -> Vec<String> {
        match read(text.as_bytes()).unwrap() {
            Named::Pages(pages) => pages,
            Named::Sitemaps(_) => panic!("{text}"),
        }
    }

    #[test]
    fn a_list_is_one_url_a_line() {
        let text = "\u{feff}# pages\nhttp://a/1\r\n\n  https://b/2?q=1#part  \n";
        assert_eq!(pages(text), ["http://a/1", "https://b/2?q=1"]);
        assert_eq!(pages(""), Vec::<String>::new());
        for (text, line) in [("http://a/\nb", 2), ("ftp://a/", 1), ("http://u:p@a/", 1), ("/a", 1)] {
            assert_eq!(read(text.as_bytes()).unwrap_err().line, Some(line), "{text}");
        }
    }

    #[test]
    fn a_sitemap_names_its_own_locations_and_no_others() {
        let text = "<?xml version=\"1.0\"?>\n<!-- <loc>http://no/</loc> -->\n<urlset xmlns='a>b' xmlns:image=\"i\">\n\
            <url><loc> http://a/1?x=1&amp;y=&#x32; </loc><image:image><image:loc>http://no/</image:loc></image:image>\
            <lastmod>2026</lastmod></url><url><loc><![CDATA[http://a/2?a&b]]></loc><loc/></url></urlset>";
        assert_eq!(pages(text), ["http://a/1?x=1&y=2", "http://a/2?a&b"]);
        assert_eq!(pages("<s:urlset><s:url><s:loc>http://a/</s:loc></s:url></s:urlset>"), ["http://a/"]);
        let index = "<sitemapindex><sitemap><loc>http://a/s.xml</loc></sitemap></sitemapindex>";
        assert_eq!(read(index.as_bytes()), Ok(Named::Sitemaps(vec!["http://a/s.xml".to_owned()])));
    }

    #[test]
    fn what_is_no_sitemap_is_said_with_its_line() {
        for (text, line) in [
            ("<html>\n</html>", Some(1)),
            ("<urlset>\n<url>\n<loc>x</loc>", Some(3)),
            ("<urlset>\n<loc>http://a/?a&b</loc>", Some(2)),
            ("<urlset>\n<loc>http://a/&evil;</loc>", Some(2)),
            ("<!DOCTYPE x [<!ENTITY evil 'x'>]><urlset/>", Some(1)),
            ("<urlset>\n<loc>http://a/", Some(2)),
            ("<urlset\n", Some(1)),
            ("<!-- ", Some(1)),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap_err().line, line, "{text}");
        }
        assert!(read(b"\xff\xfe").is_err());
    }
}
