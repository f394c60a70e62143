//! The messages between `quintet` on the host and its PID 1 in the guest.
//!
//! They travel over the first of four virtio-serial ports ([`Port`]); the other three carry the
//! program's streams as plain bytes. A frame is a little-endian `u32` length, then that many bytes:
//! one tag and the fields of the message in order. Integers are little-endian; a byte string is a
//! `u32` length and its bytes; a list is a `u32` count and its items; an option is a 0 or 1 byte.
//!
//! Both ends read what the other side, or a hostile guest, wrote: decoding checks every length,
//! allocates no more than the frame holds and never panics.
//!
//! Depends on nothing. Takes no lock.

mod wire;

use wire::{Reader, Writer};

/// Version of this protocol; [`ToHost::Ready`] carries the guest's.
pub const VERSION: u32 = 3;

/// The longest frame that either side accepts, in bytes: argv and environment of `execve` fit.
pub const MAX_FRAME: usize = 8 << 20;

/// The virtio-serial ports, by their number (`nr=` in QEMU, `/dev/vport0pN` in the guest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Framed messages, both ways.
    Control = 1,
    /// The program's standard input, host to guest.
    Stdin = 2,
    /// The program's standard output (with a terminal: all its output), guest to host.
    Stdout = 3,
    /// The program's standard error, guest to host.
    Stderr = 4,
}

impl Port {
    /// All ports, in the order of their numbers.
    pub const ALL: [Port; 4] = [Port::Control, Port::Stdin, Port::Stdout, Port::Stderr];

    /// The port's number.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// One of the program's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The program and its arguments; empty for an interactive shell.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value` entries, added to the guest's defaults.
    pub env: Vec<Vec<u8>>,
    /// The working directory; made if it is missing. Empty for `/`.
    pub cwd: Vec<u8>,
    /// `user[:group]`, names or numbers. Empty for root.
    pub user: Vec<u8>,
    /// The machine's name.
    pub hostname: Vec<u8>,
    /// Run on a terminal of this size instead of three pipes.
    pub terminal: Option<WindowSize>,
    /// Folders of the host to mount first.
    pub volumes: Vec<Volume>,
}

/// A folder that the host shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// The 9P server's mount tag.
    pub tag: Vec<u8>,
    /// Where it is to be mounted; made if it is missing.
    pub place: Vec<u8>,
    /// Nothing may be written there.
    pub read_only: bool,
}

/// Host to guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToGuest {
    /// Run this program.
    Start(Start),
    /// Standard input ends after this many bytes.
    StdinEnd {
        /// Length of the whole stream.
        bytes: u64,
    },
    /// Nobody reads this output any more: the program should see a broken pipe.
    CloseOutput(Output),
    /// Send this signal to the program's process group.
    Signal(u8),
    /// The terminal changed its size.
    Resize(WindowSize),
    /// Everything has arrived: switch the machine off.
    PowerOff,
    /// Tell who waits for whom.
    Deadlocks {
        /// For Graphviz, not as text.
        graph: bool,
    },
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It returned this status.
    Code(u8),
    /// This signal killed it.
    Signal(u8),
}

impl Ending {
    /// The status that a shell would show: the code, or 128 and the signal's number.
    pub fn shell_status(self) -> u8 {
        match self {
            Ending::Code(code) => code,
            Ending::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// Guest to host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToHost {
    /// PID 1 runs and has its ports open.
    Ready {
        /// The guest's [`VERSION`].
        version: u32,
    },
    /// The program ended, and this is all it wrote.
    Exited {
        /// How it ended.
        ending: Ending,
        /// Bytes sent through [`Port::Stdout`].
        stdout_bytes: u64,
        /// Bytes sent through [`Port::Stderr`].
        stderr_bytes: u64,
    },
    /// The program could not be started.
    Failed {
        /// The status to end with: 127 not found, 126 not executable, 125 otherwise.
        status: u8,
        /// What happened, in words.
        what: String,
    },
    /// Who waits for whom, as asked for; empty where nobody does.
    Deadlocks {
        /// What `/proc/deadlocks` or its graph holds.
        text: Vec<u8>,
    },
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The frame is longer than [`MAX_FRAME`].
    TooLong,
    /// A field reaches past the frame's end.
    Truncated,
    /// The frame goes on after its last field.
    TrailingBytes,
    /// A tag has a value that this version does not know.
    UnknownTag(u8),
    /// A text field is not UTF-8.
    NotText,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            DecodeError::TooLong => write!(f, "a frame is longer than {MAX_FRAME} bytes"),
            DecodeError::Truncated => f.write_str("a field reaches past the frame's end"),
            DecodeError::TrailingBytes => f.write_str("a frame goes on after its last field"),
            DecodeError::UnknownTag(tag) => write!(f, "unknown tag {tag}"),
            DecodeError::NotText => f.write_str("a text field is not UTF-8"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// A message that can travel in a frame.
pub trait Message: Sized {
    /// Writes the tag and the fields.
    fn write(&self, writer: &mut Writer);
    /// Reads what [`Message::write`] wrote.
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// The message as one frame.
pub fn encode(message: &impl Message) -> Vec<u8> {
    let mut writer = Writer::default();
    message.write(&mut writer);
    writer.into_frame()
}

/// Cuts a stream of bytes into messages.
#[derive(Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next complete message, if there is one. After an error the stream is of no more use.
    pub fn decode<M: Message>(&mut self) -> Result<Option<M>, DecodeError> {
        let Some((head, rest)) = self.pending.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(DecodeError::TooLong);
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let mut reader = Reader::new(body);
        let message = M::read(&mut reader)?;
        reader.finish()?;
        self.pending.drain(..4 + length);
        Ok(Some(message))
    }
}

impl WindowSize {
    fn write(self, writer: &mut Writer) {
        writer.u16(self.rows);
        writer.u16(self.columns);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(WindowSize { rows: reader.u16()?, columns: reader.u16()? })
    }
}

impl Start {
    fn write(&self, writer: &mut Writer) {
        writer.list(&self.argv);
        writer.list(&self.env);
        writer.bytes(&self.cwd);
        writer.bytes(&self.user);
        writer.bytes(&self.hostname);
        writer.u8(u8::from(self.terminal.is_some()));
        if let Some(size) = self.terminal {
            size.write(writer);
        }
        writer.u32(u32::try_from(self.volumes.len()).unwrap_or(u32::MAX));
        for volume in &self.volumes {
            writer.bytes(&volume.tag);
            writer.bytes(&volume.place);
            writer.u8(u8::from(volume.read_only));
        }
    }

    fn read_volumes(reader: &mut Reader<'_>) -> Result<Vec<Volume>, DecodeError> {
        let count = reader.u32()?;
        // The frame ends long before a count that lies does.
        (0..count)
            .map(|_| {
                let (tag, place) = (reader.bytes()?.to_vec(), reader.bytes()?.to_vec());
                Ok(Volume { tag, place, read_only: reader.u8()? != 0 })
            })
            .collect()
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Start {
            argv: reader.list()?,
            env: reader.list()?,
            cwd: reader.bytes()?.to_vec(),
            user: reader.bytes()?.to_vec(),
            hostname: reader.bytes()?.to_vec(),
            terminal: match reader.u8()? {
                0 => None,
                1 => Some(WindowSize::read(reader)?),
                tag => return Err(DecodeError::UnknownTag(tag)),
            },
            volumes: Start::read_volumes(reader)?,
        })
    }
}

impl Message for ToGuest {
    fn write(&self, writer: &mut Writer) {
        match self {
            ToGuest::Start(start) => {
                writer.u8(1);
                start.write(writer);
            }
            ToGuest::StdinEnd { bytes } => {
                writer.u8(2);
                writer.u64(*bytes);
            }
            ToGuest::CloseOutput(output) => {
                writer.u8(3);
                writer.u8(match output {
                    Output::Stdout => 1,
                    Output::Stderr => 2,
                });
            }
            ToGuest::Signal(signal) => {
                writer.u8(4);
                writer.u8(*signal);
            }
            ToGuest::Resize(size) => {
                writer.u8(5);
                size.write(writer);
            }
            ToGuest::PowerOff => writer.u8(6),
            ToGuest::Deadlocks { graph } => {
                writer.u8(7);
                writer.u8(u8::from(*graph));
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => ToGuest::Start(Start::read(reader)?),
            2 => ToGuest::StdinEnd { bytes: reader.u64()? },
            3 => ToGuest::CloseOutput(match reader.u8()? {
                1 => Output::Stdout,
                2 => Output::Stderr,
                tag => return Err(DecodeError::UnknownTag(tag)),
            }),
            4 => ToGuest::Signal(reader.u8()?),
            5 => ToGuest::Resize(WindowSize::read(reader)?),
            6 => ToGuest::PowerOff,
            7 => ToGuest::Deadlocks { graph: reader.u8()? != 0 },
            tag => return Err(DecodeError::UnknownTag(tag)),
        })
    }
}

impl Message for ToHost {
    fn write(&self, writer: &mut Writer) {
        match self {
            ToHost::Ready { version } => {
                writer.u8(1);
                writer.u32(*version);
            }
            ToHost::Exited { ending, stdout_bytes, stderr_bytes } => {
                writer.u8(2);
                let (tag, value) = match *ending {
                    Ending::Code(code) => (1, code),
                    Ending::Signal(signal) => (2, signal),
                };
                writer.u8(tag);
                writer.u8(value);
                writer.u64(*stdout_bytes);
                writer.u64(*stderr_bytes);
            }
            ToHost::Failed { status, what } => {
                writer.u8(3);
                writer.u8(*status);
                writer.bytes(what.as_bytes());
            }
            ToHost::Deadlocks { text } => {
                writer.u8(4);
                writer.bytes(text);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => ToHost::Ready { version: reader.u32()? },
            2 => ToHost::Exited {
                ending: match (reader.u8()?, reader.u8()?) {
                    (1, code) => Ending::Code(code),
                    (2, signal) => Ending::Signal(signal),
                    (tag, _) => return Err(DecodeError::UnknownTag(tag)),
                },
                stdout_bytes: reader.u64()?,
                stderr_bytes: reader.u64()?,
            },
            3 => ToHost::Failed {
                status: reader.u8()?,
                what: std::str::from_utf8(reader.bytes()?).map_err(|_| DecodeError::NotText)?.to_owned(),
            },
            4 => ToHost::Deadlocks { text: reader.bytes()?.to_vec() },
            tag => return Err(DecodeError::UnknownTag(tag)),
        })
    }
}

#[cfg(test)]
mod tests;
