//! Pseudo-terminals: line discipline, job control, window size.

use crate::sys::*;
use std::os::fd::{AsRawFd, OwnedFd};

/// TIOCPKT_FLUSHWRITE.
const FLUSHED_WRITE: u8 = 2;

/// A new terminal: its master, and the slave's path.
fn terminal() -> (OwnedFd, String) {
    let master = open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY);
    ok!(libc::grantpt(master.as_raw_fd()));
    ok!(libc::unlockpt(master.as_raw_fd()));
    let mut number = 0;
    ok!(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &mut number));
    (master, format!("/dev/pts/{number}"))
}

fn both() -> (OwnedFd, OwnedFd) {
    let (master, path) = terminal();
    let slave = open(&path, libc::O_RDWR | libc::O_NOCTTY);
    (master, slave)
}

fn modes(fd: &OwnedFd) -> libc::termios {
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    ok!(libc::tcgetattr(fd.as_raw_fd(), &mut modes));
    modes
}

fn change(fd: &OwnedFd, with: impl FnOnce(&mut libc::termios)) {
    let mut modes = modes(fd);
    with(&mut modes);
    ok!(libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, &modes));
}

fn read_all(fd: &OwnedFd, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        all.extend(read(fd, length - all.len()));
    }
    all
}

fn quiet(fd: &OwnedFd) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    ok!(libc::poll(&mut entry, 1, 20)) == 0
}

/// A child that leads a session with this terminal.
fn on_terminal(path: &str, body: impl FnOnce(OwnedFd)) -> i32 {
    child(|| {
        ok!(libc::setsid());
        body(open(path, libc::O_RDWR));
        0
    })
}

cases! {
    fn a_terminal_is_a_terminal() {
        let (master, slave) = both();
        assert_eq!(unsafe { libc::isatty(slave.as_raw_fd()) }, 1);
        assert_eq!(fstat(&slave).st_mode & libc::S_IFMT, libc::S_IFCHR);
        let (reader, _writer) = pipe();
        err!(libc::isatty(reader.as_raw_fd()).wrapping_sub(1), libc::ENOTTY);
        drop(master);
    }

    fn a_locked_terminal_cannot_be_opened() {
        let master = open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY);
        let mut number = 0;
        ok!(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &mut number));
        err!(libc::open(c(&format!("/dev/pts/{number}")).as_ptr(), libc::O_RDWR), libc::EIO);
    }

    fn lines_are_read_whole() {
        let (master, slave) = both();
        write(&master, b"ab");
        assert!(quiet(&slave));
        write(&master, b"c\nde\n");
        assert_eq!(read(&slave, 99), b"abc\n");
        assert_eq!(read(&slave, 2), b"de");
        assert_eq!(read(&slave, 99), b"\n");
    }

    fn typing_is_echoed() {
        let (master, slave) = both();
        write(&master, b"hi\n\x01");
        assert_eq!(read_all(&master, 6), b"hi\r\n^A");
        change(&slave, |modes| modes.c_lflag &= !libc::ECHO);
        write(&master, b"x\n");
        assert!(quiet(&master));
    }

    fn erase_and_kill_edit_the_line() {
        let (master, slave) = both();
        write(&master, b"abx\x7fc\n");
        assert_eq!(read(&slave, 99), b"abc\n");
        write(&master, b"junk\x15good\n");
        assert_eq!(read(&slave, 99), b"good\n");
        write(&master, b"one two\x17three\n");
        assert_eq!(read(&slave, 99), b"one three\n");
    }

    fn end_of_file_character() {
        let (master, slave) = both();
        write(&master, b"ab\x04");
        assert_eq!(read(&slave, 99), b"ab");
        write(&master, b"\x04");
        assert_eq!(read(&slave, 99), b"");
    }

    fn output_gets_carriage_returns() {
        let (master, slave) = both();
        write(&slave, b"a\nb");
        assert_eq!(read_all(&master, 4), b"a\r\nb");
        change(&slave, |modes| modes.c_oflag &= !libc::OPOST);
        write(&slave, b"a\nb");
        assert_eq!(read_all(&master, 3), b"a\nb");
    }

    fn input_carriage_returns_become_newlines() {
        let (master, slave) = both();
        write(&master, b"a\r");
        assert_eq!(read(&slave, 99), b"a\n");
    }

    fn raw_mode_passes_bytes() {
        let (master, slave) = both();
        change(&slave, |modes| unsafe { libc::cfmakeraw(modes) });
        write(&master, b"\x03\x04\r\x7f");
        assert_eq!(read_all(&slave, 4), b"\x03\x04\r\x7f");
        assert!(quiet(&master));
    }

    fn raw_reads_may_return_nothing() {
        let (master, slave) = both();
        change(&slave, |modes| { unsafe { libc::cfmakeraw(modes) }; modes.c_cc[libc::VMIN] = 0; modes.c_cc[libc::VTIME] = 0; });
        assert_eq!(read(&slave, 9), b"");
        change(&slave, |modes| modes.c_cc[libc::VTIME] = 1);
        let took = timed(|| assert_eq!(read(&slave, 9), b""));
        assert!(took.as_millis() >= 90);
        write(&master, b"x");
        assert_eq!(read(&slave, 9), b"x");
    }

    fn window_size_is_kept_and_told() {
        let (master, slave) = both();
        let size = libc::winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        ok!(libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size));
        let mut got: libc::winsize = unsafe { std::mem::zeroed() };
        ok!(libc::ioctl(slave.as_raw_fd(), libc::TIOCGWINSZ, &mut got));
        assert_eq!((got.ws_row, got.ws_col), (30, 100));
    }

    fn resizing_raises_sigwinch() {
        let (master, path) = terminal();
        let (reader, writer) = pipe();
        let pid = on_terminal(&path, |_slave| {
            block(&[libc::SIGWINCH]);
            write(&writer, b"x");
            let mut signal = 0;
            ok!(libc::sigwait(&signals(&[libc::SIGWINCH]), &mut signal));
        });
        read(&reader, 1);
        let size = libc::winsize { ws_row: 31, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        ok!(libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size));
        expect_exit(pid, 0);
    }

    fn a_session_leader_gets_the_terminal_it_opens() {
        let (_master, path) = terminal();
        let pid = on_terminal(&path, |slave| {
            let own = std::process::id() as i32;
            assert_eq!(ok!(libc::tcgetsid(slave.as_raw_fd())), own);
            assert_eq!(ok!(libc::tcgetpgrp(slave.as_raw_fd())), own);
            let again = open("/dev/tty", libc::O_RDWR);
            assert_eq!(ok!(libc::tcgetpgrp(again.as_raw_fd())), own);
        });
        expect_exit(pid, 0);
        err!(libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR), libc::ENXIO);
    }

    fn noctty_leaves_the_session_without() {
        let (_master, path) = terminal();
        in_child(|| {
            ok!(libc::setsid());
            let slave = open(&path, libc::O_RDWR | libc::O_NOCTTY);
            err!(libc::tcgetpgrp(slave.as_raw_fd()), libc::ENOTTY);
            ok!(libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0));
            assert_eq!(ok!(libc::tcgetpgrp(slave.as_raw_fd())) as u32, std::process::id());
        });
    }

    fn interrupt_quit_and_suspend_keys() {
        for (key, signal) in [(3u8, libc::SIGINT), (0x1c, libc::SIGQUIT), (0x1a, libc::SIGTSTP)] {
            let (master, path) = terminal();
            let (reader, writer) = pipe();
            let pid = on_terminal(&path, |_slave| {
                block(&[signal]);
                write(&writer, b"x");
                let mut got = 0;
                ok!(libc::sigwait(&signals(&[signal]), &mut got));
            });
            read(&reader, 1);
            write(&master, &[key]);
            expect_exit(pid, 0);
        }
    }

    fn background_reads_stop() {
        let (master, path) = terminal();
        let pid = on_terminal(&path, |slave| {
            let background = child(|| { ok!(libc::setpgid(0, 0)); read(&slave, 9); 0 });
            let mut status = 0;
            ok!(libc::waitpid(background, &mut status, libc::WUNTRACED));
            assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTTIN);
            ok!(libc::tcsetpgrp(slave.as_raw_fd(), background));
            ok!(libc::kill(background, libc::SIGCONT));
            expect_exit(background, 0);
        });
        write(&master, b"line\n");
        expect_exit(pid, 0);
    }

    fn background_changes_stop() {
        let (_master, path) = terminal();
        let pid = on_terminal(&path, |slave| {
            let own = std::process::id() as i32;
            let background = child(|| { ok!(libc::setpgid(0, 0)); ok!(libc::tcsetpgrp(slave.as_raw_fd(), libc::getpid())); 0 });
            let mut status = 0;
            ok!(libc::waitpid(background, &mut status, libc::WUNTRACED));
            assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTTOU);
            ok!(libc::kill(background, libc::SIGKILL));
            wait(background);
            assert_eq!(ok!(libc::tcgetpgrp(slave.as_raw_fd())), own);
            err!(libc::tcsetpgrp(slave.as_raw_fd(), 999_999), libc::ESRCH);
        });
        expect_exit(pid, 0);
    }

    fn background_writes_stop_only_with_tostop() {
        let (_master, path) = terminal();
        let pid = on_terminal(&path, |slave| {
            expect_exit(child(|| { ok!(libc::setpgid(0, 0)); write(&slave, b"x"); 0 }), 0);
            change(&slave, |modes| modes.c_lflag |= libc::TOSTOP);
            let background = child(|| { ok!(libc::setpgid(0, 0)); write(&slave, b"x"); 0 });
            let mut status = 0;
            ok!(libc::waitpid(background, &mut status, libc::WUNTRACED));
            assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTTOU);
            ok!(libc::kill(background, libc::SIGKILL));
            wait(background);
        });
        expect_exit(pid, 0);
    }

    fn closing_the_master_hangs_up() {
        let (master, path) = terminal();
        let (reader, writer) = pipe();
        let pid = on_terminal(&path, |_slave| {
            // Our copy of the master would keep the terminal alive.
            ok!(libc::close(master.as_raw_fd()));
            write(&writer, b"x");
            loop { nap(1000) }
        });
        read(&reader, 1);
        drop(master);
        expect_signal(pid, libc::SIGHUP);
    }

    fn a_hung_up_terminal_ends_and_refuses() {
        let (master, slave) = both();
        drop(master);
        assert_eq!(read(&slave, 9), b"");
        err!(libc::write(slave.as_raw_fd(), b"x".as_ptr().cast(), 1), libc::EIO);
    }

    fn a_master_without_slaves_reads_eio() {
        let (master, slave) = both();
        write(&slave, b"last");
        drop(slave);
        assert_eq!(read_all(&master, 4), b"last");
        err!(libc::read(master.as_raw_fd(), [0u8].as_mut_ptr().cast(), 1), libc::EIO);
    }

    fn flushing_drops_input() {
        let (master, slave) = both();
        write(&master, b"old\n");
        ok!(libc::tcflush(slave.as_raw_fd(), libc::TCIFLUSH));
        write(&master, b"new\n");
        assert_eq!(read(&slave, 99), b"new\n");
    }

    fn the_end_of_a_leader_frees_the_terminal() {
        let (_master, path) = terminal();
        let (reader, writer) = pipe();
        let leader = on_terminal(&path, |_slave| {
            child(|| { act(libc::SIGHUP, libc::SIG_DFL, 0); write(&writer, b"x"); loop { nap(1000) } });
            read(&reader, 1);
        });
        expect_exit(leader, 0);
        drop(writer);
        // The foreground child got SIGHUP, so the pipe has no writer left.
        assert_eq!(read(&reader, 1), b"");
    }

    fn packet_mode_tells_of_flushes() {
        let (master, slave) = both();
        ok!(libc::ioctl(master.as_raw_fd(), libc::TIOCPKT, &1));
        write(&slave, b"x");
        assert_eq!(read(&master, 9), b"\0x");
        ok!(libc::tcflush(slave.as_raw_fd(), libc::TCOFLUSH));
        assert_eq!(read(&master, 9), [FLUSHED_WRITE]);
    }
}
