//! Filters (RFC 7644, section 3.4.2.2): comparisons with `eq` that are joined by `and`.
//!
//! Everything else is refused. A filter that rosterd does not understand must not return more users than it means,
//! because a directory takes over the users that it finds.

use super::error::ScimError;

const MAX_CHARACTERS: usize = 2000;
/// Of parentheses. The parser does not recurse.
const MAX_DEPTH: usize = 16;

/// `attribute eq value`. The conditions in `emails[…]` have the attribute `emails.…`: a user has one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub attribute: String,
    /// `None` for `null`, and for a text with a NUL character, which no text of the database has. Numbers and truth values
    /// are texts: clients put them into quotes or not.
    pub value: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    OpenBracket,
    CloseBracket,
    Word(&'a str),
    Text(String),
}

fn refuse<T>(detail: impl Into<String>) -> Result<T, ScimError> {
    Err(ScimError::invalid_filter(detail))
}

/// Parses a filter. All conditions must be true.
pub fn parse(filter: &str) -> Result<Vec<Condition>, ScimError> {
    if filter.chars().count() > MAX_CHARACTERS {
        return refuse("the filter is longer than 2,000 characters");
    }
    let mut parser = Parser { tokens: tokens(filter)?.into_iter().peekable(), conditions: Vec::new() };
    let mut depth = 0_usize;
    loop {
        while parser.take(&Token::Open) {
            depth += 1;
            if depth > MAX_DEPTH {
                return refuse("the filter has more than 16 parentheses inside each other");
            }
        }
        parser.term()?;
        while depth > 0 && parser.take(&Token::Close) {
            depth -= 1;
        }
        if depth == 0 && parser.tokens.peek().is_none() {
            return Ok(parser.conditions);
        }
        parser.and()?;
    }
}

/// Whether the filter in the brackets of a path selects the value that rosterd has: the primary one, of the type `work`.
pub fn selects_work(selector: &str) -> Result<bool, ScimError> {
    let is_met = |condition: &Condition| {
        let Some(value) = &condition.value else { return false };
        let expected = match condition.attribute.to_ascii_lowercase().as_str() {
            "type" => "work",
            "primary" => "true",
            _ => return false,
        };
        value.eq_ignore_ascii_case(expected)
    };
    Ok(parse(selector)?.iter().all(is_met))
}

/// The position of the first bracket that closes and is not inside a text.
pub fn closing_bracket(text: &str) -> Option<usize> {
    let (mut is_text, mut is_escaped) = (false, false);
    text.bytes().position(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            _ => return byte == b']' && !is_text,
        }
        false
    })
}

struct Parser<'a> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token<'a>>>,
    conditions: Vec<Condition>,
}

impl<'a> Parser<'a> {
    fn take(&mut self, token: &Token<'_>) -> bool {
        self.tokens.next_if(|next| next == token).is_some()
    }

    fn word(&mut self) -> Option<&'a str> {
        match self.tokens.next()? {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn and(&mut self) -> Result<(), ScimError> {
        match self.word() {
            Some(word) if word.eq_ignore_ascii_case("and") => Ok(()),
            Some(word) if word.eq_ignore_ascii_case("or") => refuse("the operator or is not supported"),
            _ => refuse("the filter has neither and nor its end after a comparison"),
        }
    }

    /// `attribute eq value`, `attribute[…]` or `attribute[…].sub eq value`.
    fn term(&mut self) -> Result<(), ScimError> {
        let name = self.attribute()?;
        if !self.take(&Token::OpenBracket) {
            return self.comparison(name.to_owned());
        }
        loop {
            let sub = self.attribute()?;
            self.comparison(format!("{name}.{sub}"))?;
            if self.take(&Token::CloseBracket) {
                break;
            }
            self.and()?;
        }
        match self.tokens.peek() {
            Some(Token::Word(sub)) if sub.starts_with('.') => {
                let attribute = format!("{name}{sub}");
                self.tokens.next();
                self.comparison(attribute)
            }
            _ => Ok(()),
        }
    }

    fn attribute(&mut self) -> Result<&'a str, ScimError> {
        match self.word() {
            Some(word) if word.eq_ignore_ascii_case("not") => refuse("the operator not is not supported"),
            Some(word) => Ok(word),
            None => refuse("the filter has no name of an attribute where one is expected"),
        }
    }

    fn comparison(&mut self, attribute: String) -> Result<(), ScimError> {
        const OTHER_OPERATORS: [&str; 9] = ["ne", "co", "sw", "ew", "pr", "gt", "ge", "lt", "le"];
        let operator = self.word().map(str::to_ascii_lowercase);
        match operator.as_deref() {
            Some("eq") => {}
            Some(other) if OTHER_OPERATORS.contains(&other) => {
                return refuse(format!("the operator {other} is not supported; use eq"));
            }
            _ => return refuse("the filter has no operator after the name of an attribute; use eq"),
        }
        let value = match self.tokens.next() {
            Some(Token::Text(text)) => Some(text),
            Some(Token::Word("null")) => None,
            Some(Token::Word(word)) => Some(word.to_owned()),
            _ => return refuse("the filter has no value after eq"),
        };
        let value = value.filter(|value| !value.contains('\0'));
        self.conditions.push(Condition { attribute, value });
        Ok(())
    }
}

fn tokens(filter: &str) -> Result<Vec<Token<'_>>, ScimError> {
    let (mut tokens, mut rest) = (Vec::new(), filter.trim_start());
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '[' => (Token::OpenBracket, 1),
            ']' => (Token::CloseBracket, 1),
            '"' => text(rest)?,
            _ => {
                let is_end = |c: char| c.is_whitespace() || "()[]\"".contains(c);
                let length = rest.find(is_end).unwrap_or(rest.len());
                (Token::Word(&rest[..length]), length)
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// A text in quotes with JSON's escapes, and its length in bytes.
fn text(rest: &str) -> Result<(Token<'static>, usize), ScimError> {
    let mut is_escaped = false;
    let end = rest.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    let Some(end) = end else { return refuse("a text in the filter has no closing quotation mark") };
    match serde_json::from_str(&rest[..end + 2]) {
        Ok(text) => Ok((Token::Text(text), end + 2)),
        Err(_) => refuse("a text in the filter is not a JSON string"),
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
