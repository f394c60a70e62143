//! The line discipline: what a terminal does with each byte typed, and with each byte written. Pure: it is told settings and bytes, and
//! says what to echo, which signals to send, and what a reader gets. The rules are those of Linux's N_TTY.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use abi::general as c;

use super::termios::{Termios, cc};

/// Bytes that are kept for readers.
const CAPACITY: usize = 4095;

const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGTSTP: i32 = 20;

/// A byte for the reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Item {
    /// A character.
    Byte(u8),
    /// A character that ends a line.
    LineEnd(u8),
    /// End of file: ends a line without being part of it.
    Eof,
}

impl Item {
    fn ends_line(self) -> bool {
        !matches!(self, Item::Byte(_))
    }

    /// What a reader without lines gets of it.
    fn raw(self) -> u8 {
        match self {
            Item::Byte(byte) | Item::LineEnd(byte) => byte,
            Item::Eof => 0,
        }
    }
}

/// What a byte of input led to, besides being kept.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Effects {
    /// To be written to the device.
    pub(super) echo: Vec<u8>,
    /// To be sent to the foreground process group.
    pub(super) signals: Vec<i32>,
    /// Output is to stop (`Some(true)`) or go on.
    pub(super) stop: Option<bool>,
    /// Output that waits in the device is to be thrown away.
    pub(super) flush_output: bool,
}

/// The state of a line discipline.
#[derive(Default)]
pub(super) struct Discipline {
    items: VecDeque<Item>,
    /// How many of the items a reader of lines may have: complete lines.
    complete: usize,
    /// The next byte is taken as it is (VLNEXT).
    literal: bool,
    /// An erasure is being shown between `\` and `/` (ECHOPRT).
    erasing: bool,
    /// Output is stopped (^S).
    pub(super) stopped: bool,
    /// Where the cursor is.
    column: usize,
    /// Where it was when the line that is being typed began.
    line_column: usize,
}

fn is_control(byte: u8) -> bool {
    byte < 32 || byte == 127
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Is it a byte of a UTF-8 character other than the first?
fn continues(termios: &Termios, byte: u8) -> bool {
    termios.input(c::IUTF8) && byte & 0xc0 == 0x80
}

impl Discipline {
    /// Can it take input? Where a line is being typed it always can: what does not fit is dropped.
    pub(super) fn has_room(&self, termios: &Termios) -> bool {
        self.items.len() < CAPACITY || termios.local(c::ICANON) && self.complete == 0
    }

    /// Takes a byte of input.
    pub(super) fn input(&mut self, termios: &Termios, byte: u8, fx: &mut Effects) {
        let mut byte = byte;
        if termios.input(c::ISTRIP) {
            byte &= 0x7f;
        }
        if termios.input(c::IUCLC) && termios.local(c::IEXTEN) {
            byte = byte.to_ascii_lowercase();
        }
        if termios.local(c::EXTPROC) {
            return self.keep(termios, Item::Byte(byte), fx);
        }
        if core::mem::take(&mut self.literal) {
            return self.ordinary(termios, byte, fx);
        }
        if self.control(termios, byte, fx) {
            return;
        }
        match byte {
            b'\r' if termios.input(c::IGNCR) => return,
            b'\r' if termios.input(c::ICRNL) => byte = b'\n',
            b'\n' if termios.input(c::INLCR) => byte = b'\r',
            _ => {}
        }
        if termios.local(c::ICANON) && self.edit(termios, byte, fx) {
            return;
        }
        self.ordinary(termios, byte, fx);
    }

    /// Flow control and signals; true if the byte was one of those.
    fn control(&mut self, termios: &Termios, byte: u8, fx: &mut Effects) -> bool {
        if termios.input(c::IXON) {
            if termios.is(byte, cc::VSTART) {
                self.set_stopped(false, fx);
                return true;
            }
            if termios.is(byte, cc::VSTOP) {
                self.set_stopped(true, fx);
                return true;
            }
        }
        if self.stopped && termios.input(c::IXON) && termios.input(c::IXANY) {
            self.set_stopped(false, fx);
        }
        if !termios.local(c::ISIG) {
            return false;
        }
        let signal = match byte {
            b if termios.is(b, cc::VINTR) => SIGINT,
            b if termios.is(b, cc::VQUIT) => SIGQUIT,
            b if termios.is(b, cc::VSUSP) => SIGTSTP,
            _ => return false,
        };
        fx.signals.push(signal);
        if !termios.local(c::NOFLSH) {
            self.flush_input();
            fx.flush_output = true;
        }
        if termios.input(c::IXON) {
            self.set_stopped(false, fx);
        }
        if termios.local(c::ECHO) {
            self.echo(termios, byte, fx);
        }
        true
    }

    fn set_stopped(&mut self, stopped: bool, fx: &mut Effects) {
        if self.stopped != stopped {
            self.stopped = stopped;
            fx.stop = Some(stopped);
        }
    }

    /// Line editing; true if the byte was an editing character.
    fn edit(&mut self, termios: &Termios, byte: u8, fx: &mut Effects) -> bool {
        let extended = termios.local(c::IEXTEN);
        let is = |index| termios.is(byte, index);
        if is(cc::VERASE) || is(cc::VKILL) || is(cc::VWERASE) && extended {
            self.erase(termios, byte, fx);
        } else if is(cc::VLNEXT) && extended {
            self.literal = true;
            if termios.local(c::ECHO) {
                self.finish_erasing(termios, fx);
                if termios.local(c::ECHOCTL) {
                    fx.echo.extend_from_slice(b"^\x08");
                }
            }
        } else if is(cc::VREPRINT) && extended && termios.local(c::ECHO) {
            self.reprint(termios, byte, fx);
        } else if byte == b'\n' {
            if termios.local(c::ECHO | c::ECHONL) {
                self.finish_erasing(termios, fx);
                self.put(termios, b'\n', &mut fx.echo);
            }
            self.end_line(termios, Item::LineEnd(byte), fx);
        } else if is(cc::VEOF) {
            self.end_line(termios, Item::Eof, fx);
        } else if is(cc::VEOL) || is(cc::VEOL2) && extended {
            if termios.local(c::ECHO) {
                self.remember_line_start();
                self.echo(termios, byte, fx);
            }
            self.end_line(termios, Item::LineEnd(byte), fx);
        } else {
            return false;
        }
        true
    }

    fn ordinary(&mut self, termios: &Termios, byte: u8, fx: &mut Effects) {
        if termios.local(c::ECHO) {
            self.finish_erasing(termios, fx);
            if byte == b'\n' {
                self.put(termios, b'\n', &mut fx.echo);
            } else {
                self.remember_line_start();
                self.echo(termios, byte, fx);
            }
        }
        if byte == 0xff && termios.input(c::PARMRK) {
            self.keep(termios, Item::Byte(byte), fx);
        }
        self.keep(termios, Item::Byte(byte), fx);
    }

    fn remember_line_start(&mut self) {
        if self.items.len() == self.complete {
            self.line_column = self.column;
        }
    }

    fn keep(&mut self, termios: &Termios, item: Item, fx: &mut Effects) {
        if self.items.len() >= CAPACITY {
            if termios.input(c::IMAXBEL) {
                fx.echo.push(7);
            }
            return;
        }
        self.items.push_back(item);
        if !termios.local(c::ICANON) {
            self.complete = self.items.len();
        }
    }

    fn end_line(&mut self, termios: &Termios, item: Item, fx: &mut Effects) {
        if self.items.len() >= CAPACITY && self.complete == 0 {
            // Room for the end of a line is made at the cost of its last byte, or no reader would ever get it.
            self.items.pop_back();
        }
        self.keep(termios, item, fx);
        self.complete = self.items.len();
    }

    /// Shows a byte, control characters as `^X` if so set.
    fn echo(&mut self, termios: &Termios, byte: u8, fx: &mut Effects) {
        if termios.local(c::ECHOCTL) && is_control(byte) && byte != b'\t' {
            fx.echo.push(b'^');
            fx.echo.push(byte ^ 0x40);
            self.column += 2;
        } else {
            self.put(termios, byte, &mut fx.echo);
        }
    }

    fn finish_erasing(&mut self, termios: &Termios, fx: &mut Effects) {
        if core::mem::take(&mut self.erasing) {
            self.put(termios, b'/', &mut fx.echo);
        }
    }

    fn reprint(&mut self, termios: &Termios, byte: u8, fx: &mut Effects) {
        self.finish_erasing(termios, fx);
        self.echo(termios, byte, fx);
        self.put(termios, b'\n', &mut fx.echo);
        self.line_column = self.column;
        for index in self.complete..self.items.len() {
            let typed = self.items[index].raw();
            self.echo(termios, typed, fx);
        }
    }

    /// ERASE, WERASE and KILL.
    fn erase(&mut self, termios: &Termios, byte: u8, fx: &mut Effects) {
        if self.items.len() == self.complete {
            return;
        }
        let kill = termios.is(byte, cc::VKILL);
        let word = !kill && !termios.is(byte, cc::VERASE);
        let echo = termios.local(c::ECHO);
        if kill && !(echo && termios.local(c::ECHOK) && termios.local(c::ECHOKE) && termios.local(c::ECHOE)) {
            self.items.truncate(self.complete);
            if echo {
                self.finish_erasing(termios, fx);
                self.echo(termios, byte, fx);
                if termios.local(c::ECHOK) {
                    self.put(termios, b'\n', &mut fx.echo);
                }
            }
            return;
        }
        let mut in_word = false;
        while self.items.len() > self.complete {
            let start = self.character_start(termios);
            let first = self.items[start].raw();
            if word {
                if is_word(first) {
                    in_word = true;
                } else if in_word {
                    break;
                }
            }
            let before = self.typed_column(termios, self.items.len());
            let gone: Vec<u8> = self.items.drain(start..).map(Item::raw).collect();
            if echo {
                self.show_erased(termios, byte, &gone, before, kill || word, fx);
            }
            if !kill && !word {
                break;
            }
        }
        if self.items.len() == self.complete && echo {
            self.finish_erasing(termios, fx);
        }
    }

    /// Where the last character that is being typed begins.
    fn character_start(&self, termios: &Termios) -> usize {
        let mut start = self.items.len() - 1;
        while start > self.complete && continues(termios, self.items[start].raw()) {
            start -= 1;
        }
        start
    }

    /// The column behind the first `end` items, as echoed.
    fn typed_column(&self, termios: &Termios, end: usize) -> usize {
        let mut column = self.line_column;
        for item in self.items.range(self.complete..end) {
            column = match item.raw() {
                b'\t' => (column | 7) + 1,
                byte if is_control(byte) => column + if termios.local(c::ECHOCTL) { 2 } else { 0 },
                byte if continues(termios, byte) => column,
                _ => column + 1,
            };
        }
        column
    }

    fn show_erased(&mut self, termios: &Termios, key: u8, gone: &[u8], before: usize, many: bool, fx: &mut Effects) {
        if termios.local(c::ECHOPRT) {
            if !self.erasing {
                self.put(termios, b'\\', &mut fx.echo);
                self.erasing = true;
            }
            for &byte in gone {
                self.echo(termios, byte, fx);
            }
            return;
        }
        if !many && !termios.local(c::ECHOE) {
            return self.echo(termios, key, fx);
        }
        let after = self.typed_column(termios, self.items.len());
        for _ in after..before {
            // A tab is only stepped back over; what it moved the cursor across is blank.
            let step: &[u8] = if gone == b"\t" { b"\x08" } else { b"\x08 \x08" };
            fx.echo.extend_from_slice(step);
        }
        self.column = self.column.saturating_sub(before - after.min(before));
    }

    /// Writes a byte as a program's output is written.
    pub(super) fn put(&mut self, termios: &Termios, byte: u8, out: &mut Vec<u8>) {
        if !termios.output(c::OPOST) {
            return out.push(byte);
        }
        match byte {
            b'\n' => {
                if termios.output(c::ONLRET) {
                    self.column = 0;
                }
                if termios.output(c::ONLCR) {
                    self.column = 0;
                    out.push(b'\r');
                }
                out.push(b'\n');
            }
            b'\r' if termios.output(c::ONOCR) && self.column == 0 => {}
            b'\r' if termios.output(c::OCRNL) => {
                if termios.output(c::ONLRET) {
                    self.column = 0;
                }
                out.push(b'\n');
            }
            b'\r' => {
                self.column = 0;
                out.push(b'\r');
            }
            b'\t' => {
                let width = 8 - self.column % 8;
                self.column += width;
                if termios.oflag & c::TABDLY == c::XTABS {
                    out.extend(core::iter::repeat_n(b' ', width));
                } else {
                    out.push(b'\t');
                }
            }
            b'\x08' => {
                self.column = self.column.saturating_sub(1);
                out.push(byte);
            }
            _ => {
                let byte = if termios.output(c::OLCUC) { byte.to_ascii_uppercase() } else { byte };
                if !is_control(byte) && !continues(termios, byte) {
                    self.column += 1;
                }
                out.push(byte);
            }
        }
    }

    /// Bytes that a reader could have now.
    pub(super) fn available(&self, termios: &Termios) -> usize {
        if termios.local(c::ICANON) { self.complete } else { self.items.len() }
    }

    /// For FIONREAD: in lines, the end-of-file marks don't count.
    pub(super) fn readable(&self, termios: &Termios) -> usize {
        let count = self.available(termios);
        let eofs =
            if termios.local(c::ICANON) { self.items.range(..count).filter(|i| **i == Item::Eof).count() } else { 0 };
        count - eofs
    }

    /// Gives a reader what it gets at once: with lines, up to one line. True in the second place: a line (or the file) ended here.
    pub(super) fn read(&mut self, termios: &Termios, buffer: &mut [u8]) -> (usize, bool) {
        let lines = termios.local(c::ICANON);
        let mut n = 0;
        loop {
            if self.available(termios) == 0 {
                return (n, false);
            }
            if n == buffer.len() {
                // An end-of-file mark right behind a full buffer must not read as an end of file next time.
                let eof_next = lines && self.items.front() == Some(&Item::Eof);
                if eof_next && n > 0 {
                    self.pop();
                }
                return (n, lines && eof_next);
            }
            let Some(item) = self.pop() else { return (n, false) };
            if !lines {
                buffer[n] = item.raw();
                n += 1;
                continue;
            }
            if let Item::Byte(byte) | Item::LineEnd(byte) = item {
                buffer[n] = byte;
                n += 1;
            }
            if item.ends_line() {
                return (n, true);
            }
        }
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front();
        self.complete = self.complete.saturating_sub(usize::from(item.is_some()));
        item
    }

    /// Throws typed input away.
    pub(super) fn flush_input(&mut self) {
        self.items.clear();
        self.complete = 0;
        self.literal = false;
        self.erasing = false;
    }

    /// The settings change: what has been typed is cut into lines anew, or not at all.
    pub(super) fn settings_change(&mut self, old: &Termios, new: &Termios) {
        let (was, is) = (old.local(c::ICANON), new.local(c::ICANON));
        if was != is {
            for item in &mut self.items {
                *item = Item::Byte(item.raw());
            }
            if is && let Some(last) = self.items.back_mut() {
                *last = Item::LineEnd(last.raw());
            }
            self.complete = self.items.len();
            self.literal = false;
        }
    }
}

#[cfg(test)]
mod tests;
