//! The four virtio-serial ports to the host.

use protocol::{Decoder, Port, ToGuest, ToHost, encode};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long the kernel may take to find its devices.
const PATIENCE: Duration = Duration::from_secs(20);
/// A virtio-serial device is the first virtio device or a later one.
const DEVICES: std::ops::Range<u8> = 0..8;

/// The open ports. The control port blocks; the others do not.
pub(crate) struct Ports {
    pub(crate) control: Control,
    pub(crate) stdin: Rc<OwnedFd>,
    pub(crate) stdout: Rc<OwnedFd>,
    pub(crate) stderr: Rc<OwnedFd>,
}

impl Ports {
    /// Opens the ports, waiting for the kernel to make them.
    pub(crate) fn open() -> io::Result<Ports> {
        let data = OFlags::RDWR | OFlags::NONBLOCK;
        Ok(Ports {
            control: Control { port: open_port(Port::Control, OFlags::RDWR)?, decoder: Decoder::default() },
            stdin: Rc::new(open_port(Port::Stdin, data)?),
            stdout: Rc::new(open_port(Port::Stdout, data)?),
            stderr: Rc::new(open_port(Port::Stderr, data)?),
        })
    }
}

fn open_port(port: Port, flags: OFlags) -> io::Result<OwnedFd> {
    let started = Instant::now();
    loop {
        for device in DEVICES {
            let path = format!("/dev/vport{device}p{}", port.number());
            match open(&path, flags | OFlags::CLOEXEC, Mode::empty()) {
                Ok(fd) => return Ok(fd),
                Err(Errno::NOENT | Errno::NXIO | Errno::NODEV) => {}
                Err(error) => return Err(io::Error::other(format!("{path}: {error}"))),
            }
        }
        if started.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("no /dev/vport0p{} appeared", port.number())));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The port that carries messages.
pub(crate) struct Control {
    pub(crate) port: OwnedFd,
    decoder: Decoder,
}

impl Control {
    /// Sends a message whole.
    pub(crate) fn send(&self, message: &ToHost) -> io::Result<()> {
        let frame = encode(message);
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&self.port, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what has arrived, waiting if nothing has. False when the host is gone.
    pub(crate) fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.port, &mut buffer) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.decoder.push(&buffer[..length]);
                Ok(true)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The next message among what was received.
    pub(crate) fn take(&mut self) -> io::Result<Option<ToGuest>> {
        self.decoder.decode().map_err(|error| io::Error::other(format!("from the host: {error}")))
    }
}
