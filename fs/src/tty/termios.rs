//! Terminal settings (termios(3)), and their binary forms in ioctls.

use abi::general as c;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Indices into the control characters.
#[allow(missing_docs, reason = "termios(3) names them")]
pub mod cc {
    pub const VINTR: usize = 0;
    pub const VQUIT: usize = 1;
    pub const VERASE: usize = 2;
    pub const VKILL: usize = 3;
    pub const VEOF: usize = 4;
    pub const VTIME: usize = 5;
    pub const VMIN: usize = 6;
    pub const VSTART: usize = 8;
    pub const VSTOP: usize = 9;
    pub const VSUSP: usize = 10;
    pub const VEOL: usize = 11;
    pub const VREPRINT: usize = 12;
    pub const VWERASE: usize = 14;
    pub const VLNEXT: usize = 15;
    pub const VEOL2: usize = 16;
}

/// The settings: `struct termios2`, of which `struct termios` is the beginning.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[allow(missing_docs, reason = "termios(3) names the fields")]
pub struct Termios {
    pub iflag: u32,
    pub oflag: u32,
    pub cflag: u32,
    pub lflag: u32,
    pub line: u8,
    pub cc: [u8; 19],
    pub ispeed: u32,
    pub ospeed: u32,
}

/// The bytes of `struct termios`, which lacks the speeds.
pub(super) const TERMIOS_LEN: usize = 36;

/// The old `struct termio`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct Termio {
    iflag: u16,
    oflag: u16,
    cflag: u16,
    lflag: u16,
    line: u8,
    cc: [u8; 8],
    _pad: u8,
}

/// `struct winsize`.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[allow(missing_docs, reason = "tty_ioctl(4) names the fields")]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
    pub xpixel: u16,
    pub ypixel: u16,
}

const SPEEDS: [(u32, u32); 14] = [
    (c::B0, 0),
    (c::B50, 50),
    (c::B110, 110),
    (c::B300, 300),
    (c::B600, 600),
    (c::B1200, 1200),
    (c::B2400, 2400),
    (c::B4800, 4800),
    (c::B9600, 9600),
    (c::B19200, 19200),
    (c::B38400, 38400),
    (c::B57600, 57600),
    (c::B115200, 115_200),
    (c::B230400, 230_400),
];

impl Default for Termios {
    /// What Linux gives a fresh terminal (`tty_std_termios`).
    fn default() -> Termios {
        let mut chars = [0; 19];
        chars[..17].copy_from_slice(&[3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0]);
        Termios {
            iflag: c::ICRNL | c::IXON,
            oflag: c::OPOST | c::ONLCR,
            cflag: c::B38400 | c::CS8 | c::CREAD | c::HUPCL,
            lflag: c::ISIG | c::ICANON | c::ECHO | c::ECHOE | c::ECHOK | c::ECHOCTL | c::ECHOKE | c::IEXTEN,
            line: 0,
            cc: chars,
            ispeed: 38400,
            ospeed: 38400,
        }
    }
}

impl Termios {
    /// The settings of a pty's slave: as fresh ones, without hanging up on last close.
    pub(super) fn for_pty() -> Termios {
        Termios { cflag: c::B38400 | c::CS8 | c::CREAD, ..Termios::default() }
    }

    /// Is the input flag set?
    #[inline]
    pub(super) fn input(&self, flag: u32) -> bool {
        self.iflag & flag != 0
    }

    /// Is the output flag set?
    #[inline]
    pub(super) fn output(&self, flag: u32) -> bool {
        self.oflag & flag != 0
    }

    /// Is the local flag set?
    #[inline]
    pub(super) fn local(&self, flag: u32) -> bool {
        self.lflag & flag != 0
    }

    /// Is `byte` the control character at `index`? A character of 0 is disabled.
    #[inline]
    pub(super) fn is(&self, byte: u8, index: usize) -> bool {
        byte != 0 && self.cc[index] == byte
    }

    /// Derives the speeds from the B* code in the control flags, where that is one.
    pub(super) fn set_speeds_from_flags(&mut self) {
        let code = self.cflag & c::CBAUD;
        if let Some((_, speed)) = SPEEDS.iter().find(|(b, _)| *b == code) {
            self.ospeed = *speed;
            self.ispeed = *speed;
        }
    }

    pub(super) fn to_termio(self) -> Termio {
        let mut chars = [0; 8];
        chars.copy_from_slice(&self.cc[..8]);
        let low = |flags: u32| flags as u16;
        Termio {
            iflag: low(self.iflag),
            oflag: low(self.oflag),
            cflag: low(self.cflag),
            lflag: low(self.lflag),
            line: self.line,
            cc: chars,
            _pad: 0,
        }
    }

    /// These settings with the low halves of the flags as in `old`.
    pub(super) fn with_termio(mut self, old: &Termio) -> Termios {
        let low = |flags: u32, new: u16| flags & 0xffff_0000 | u32::from(new);
        self.iflag = low(self.iflag, old.iflag);
        self.oflag = low(self.oflag, old.oflag);
        self.cflag = low(self.cflag, old.cflag);
        self.lflag = low(self.lflag, old.lflag);
        self.line = old.line;
        self.cc[..8].copy_from_slice(&old.cc);
        self
    }
}

const _: () = assert!(size_of::<Termios>() == 44 && size_of::<Termio>() == 18);
