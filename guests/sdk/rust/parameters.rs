//! The guest's own parameters, out of the configuration document.

use crate::{abi, say};

const MOST: usize = 64;
const DEPTH: u32 = 32;

/// Each parameter is asked for once; `close` refuses what nobody asked for. The first problem is
/// kept, and the readers go on with their fallback.
pub struct Parameters {
    members: [Member; MOST],
    count: usize,
    failed: bool,
}

#[derive(Clone, Copy)]
struct Member {
    key: &'static str,
    value: &'static str,
    asked: bool,
}

impl Parameters {
    /// Opens the document that `edge_configure` was given; what is wrong with it shows in `close`.
    ///
    /// # Safety
    /// The two are the arguments of `edge_configure`.
    pub unsafe fn open(document: *const u8, bytes: usize) -> Self {
        let none = Member {
            key: "",
            value: "",
            asked: false,
        };
        let mut found = Self {
            members: [none; MOST],
            count: 0,
            failed: false,
        };
        let raw: &'static [u8] = core::slice::from_raw_parts(document, bytes);
        let Ok(text) = core::str::from_utf8(raw) else {
            return found.unreadable(0);
        };
        let mut reader = Reader { text, at: 0 };
        if reader.document(&mut found).is_none() {
            return found.unreadable(reader.at);
        }
        found
    }

    /// A number from `low` to `high`.
    pub fn number(&mut self, key: &str, fallback: f64, low: f64, high: f64) -> f64 {
        let Some(value) = self.ask(key) else {
            return fallback;
        };
        match value.parse::<f64>() {
            Ok(number) if is_number(value) && number >= low && number <= high => number,
            _ => {
                self.refuse(format_args!(
                    "parameters.{key}: expected a number {low}..{high}"
                ));
                fallback
            }
        }
    }

    /// A whole number from `low` to `high`.
    pub fn whole(&mut self, key: &str, fallback: u32, low: u32, high: u32) -> u32 {
        let Some(value) = self.ask(key) else {
            return fallback;
        };
        match value.parse::<u32>() {
            Ok(number) if is_number(value) && number >= low && number <= high => number,
            _ => {
                self.refuse(format_args!(
                    "parameters.{key}: expected a whole number {low}..{high}"
                ));
                fallback
            }
        }
    }

    /// The result of `edge_configure`.
    pub fn close(mut self) -> i32 {
        for at in 0..self.count {
            let member = self.members[at];
            if !member.asked {
                self.refuse(format_args!("parameters.{}: no such parameter", member.key));
            }
        }
        if self.failed {
            abi::ERROR_PARAMETERS
        } else {
            abi::OK
        }
    }

    fn ask(&mut self, key: &str) -> Option<&'static str> {
        let member = self.members[..self.count]
            .iter_mut()
            .find(|member| member.key == key)?;
        member.asked = true;
        Some(member.value)
    }

    fn keep(&mut self, key: &'static str, value: &'static str) -> Option<()> {
        if self.members[..self.count]
            .iter()
            .any(|member| member.key == key)
        {
            self.refuse(format_args!("parameters.{key}: stands twice"));
        }
        *self.members.get_mut(self.count)? = Member {
            key,
            value,
            asked: false,
        };
        self.count += 1;
        Some(())
    }

    fn refuse(&mut self, sentence: core::fmt::Arguments) {
        if !self.failed {
            say(sentence);
        }
        self.failed = true;
    }

    fn unreadable(mut self, at: usize) -> Self {
        self.refuse(format_args!(
            "configuration, byte {}: not JSON that this guest takes",
            at as u32
        ));
        self.count = 0;
        self
    }
}

/// Rust's `parse` takes more than JSON does: `+1`, `inf`.
fn is_number(value: &str) -> bool {
    value.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// Walks over JSON (RFC 8259); `None` where it is none, with `at` at the place.
struct Reader {
    text: &'static str,
    at: usize,
}

impl Reader {
    fn document(&mut self, found: &mut Parameters) -> Option<()> {
        self.space();
        self.members(0, &mut |reader, key| {
            if key != "parameters" {
                return reader.value(1);
            }
            reader.members(1, &mut |inner, key| {
                let begin = inner.at;
                inner.value(2)?;
                found.keep(key, &inner.text[begin..inner.at])
            })
        })?;
        self.space();
        (self.at == self.text.len()).then_some(())
    }

    fn value(&mut self, depth: u32) -> Option<()> {
        match self.peek()? {
            b'{' => self.members(depth, &mut |reader, _| reader.value(depth + 1)),
            b'[' => self.list(depth, b'[', b']', &mut |reader| reader.value(depth + 1)),
            b'"' => self.string().map(|_| ()),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn members(
        &mut self,
        depth: u32,
        each: &mut dyn FnMut(&mut Self, &'static str) -> Option<()>,
    ) -> Option<()> {
        self.list(depth, b'{', b'}', &mut |reader| {
            let key = reader.string()?;
            reader.space();
            reader.take(b':')?;
            reader.space();
            each(reader, key)
        })
    }

    fn list(
        &mut self,
        depth: u32,
        open: u8,
        close: u8,
        each: &mut dyn FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        if depth > DEPTH {
            return None;
        }
        self.take(open)?;
        self.space();
        if self.take(close).is_some() {
            return Some(());
        }
        loop {
            self.space();
            each(self)?;
            self.space();
            if self.take(b',').is_none() {
                return self.take(close);
            }
        }
    }

    /// What stands between the quotes; escapes stay as they are written.
    fn string(&mut self) -> Option<&'static str> {
        self.take(b'"')?;
        let begin = self.at;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.escape()?,
                0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(&self.text[begin..self.at - 1])
    }

    fn escape(&mut self) -> Option<()> {
        self.at += 1;
        let letter = self.peek()?;
        self.at += 1;
        if letter != b'u' {
            return b"\"\\/bfnrt".contains(&letter).then_some(());
        }
        for _ in 0..4 {
            if !self.peek()?.is_ascii_hexdigit() {
                return None;
            }
            self.at += 1;
        }
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if self.take(b'e').or_else(|| self.take(b'E')).is_some() {
            let _ = self.take(b'-').or_else(|| self.take(b'+'));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > begin).then_some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        word.bytes().try_for_each(|letter| self.take(letter))
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }
}
