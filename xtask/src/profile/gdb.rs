//! As much of gdb's remote protocol as sampling takes: stop, look at each CPU's registers and stack, go on.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// In which QEMU has to listen.
const PATIENCE: Duration = Duration::from_secs(60);
/// After which a silent QEMU is lost.
const ANSWER: Duration = Duration::from_secs(20);
/// Where the registers are in an answer to `g`: x86-64, as gdb numbers them.
const RBP: usize = 6 * 8;
const RSP: usize = 7 * 8;
const RIP: usize = 16 * 8;
const CS: usize = 17 * 8 + 4;
/// How much of a stack is looked at.
const STACK: usize = 16 << 10;
const PAGE: u64 = 4096;

/// A connection to QEMU.
pub(super) struct Gdb {
    stream: TcpStream,
}

/// What one CPU was doing.
pub(super) struct Registers {
    pub(super) rip: u64,
    pub(super) rbp: u64,
    pub(super) rsp: u64,
    /// It ran a program's own code.
    pub(super) user: bool,
}

impl Gdb {
    /// Connects as soon as QEMU listens; the guest waits until [`Gdb::go_on`].
    pub(super) fn connect(port: u16) -> io::Result<Gdb> {
        let started = Instant::now();
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(error) if started.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut gdb = Gdb { stream };
        gdb.ask("?")?;
        Ok(gdb)
    }

    /// Lets the guest run.
    pub(super) fn go_on(&mut self) -> io::Result<()> {
        self.send("c")
    }

    /// Stops the guest.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        self.stream.write_all(&[3])?;
        self.answer().map(drop)
    }

    /// The numbers of the CPUs, as text.
    pub(super) fn cpus(&mut self) -> io::Result<Vec<String>> {
        let mut cpus = Vec::new();
        let mut answer = self.ask("qfThreadInfo")?;
        while let Some(list) = answer.strip_prefix('m') {
            cpus.extend(list.split(',').map(str::to_owned));
            answer = self.ask("qsThreadInfo")?;
        }
        Ok(cpus)
    }

    /// A CPU's registers.
    pub(super) fn registers(&mut self, cpu: &str) -> io::Result<Registers> {
        self.ask(&format!("Hg{cpu}"))?;
        let bytes = decode(&self.ask("g")?);
        let word = |at: usize| bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        let registers = || {
            let user = bytes.get(CS)? & 3 == 3;
            Some(Registers { rip: word(RIP)?, rbp: word(RBP)?, rsp: word(RSP)?, user })
        };
        registers().ok_or_else(|| io::Error::other("QEMU gave no registers"))
    }

    /// The words on the current CPU's stack, from `rsp` on, page by page to where nothing is mapped.
    pub(super) fn stack(&mut self, rsp: u64) -> io::Result<Vec<u64>> {
        let mut bytes = Vec::new();
        while bytes.len() < STACK {
            let at = rsp.wrapping_add(bytes.len() as u64);
            let part = decode(&self.ask(&format!("m{at:x},{:x}", PAGE - at % PAGE))?);
            if part.is_empty() {
                break;
            }
            bytes.extend(part);
        }
        Ok(bytes.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_le_bytes)).collect())
    }

    fn ask(&mut self, question: &str) -> io::Result<String> {
        self.send(question)?;
        self.answer()
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        let sum = text.bytes().fold(0u8, u8::wrapping_add);
        self.stream.write_all(format!("${text}#{sum:02x}").as_bytes())
    }

    /// The next packet: everything between `$` and `#`. We acknowledge it, and take no notice of theirs.
    fn answer(&mut self) -> io::Result<String> {
        while self.byte()? != b'$' {}
        let mut text = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                // Run-length encoding: the character before, so many times more.
                b'*' => {
                    let count = usize::from(self.byte()?.saturating_sub(29));
                    let last = text.last().copied().unwrap_or(b'0');
                    text.extend(std::iter::repeat_n(last, count));
                }
                byte => text.push(byte),
            }
        }
        self.byte()?;
        self.byte()?;
        self.stream.write_all(b"+")?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

/// The bytes of a hexadecimal answer; none of an error such as `E14`.
fn decode(text: &str) -> Vec<u8> {
    if text.len() % 2 == 1 {
        return Vec::new();
    }
    let pairs = text.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect::<Option<Vec<u8>>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_decoded() {
        assert_eq!(decode("00ff10"), [0, 255, 16]);
        assert!(decode("E14").is_empty() && decode("zz").is_empty());
    }
}
