//! What a terminal echoes, signals and gives to readers.

use super::*;

fn type_in(tty: &mut Discipline, termios: &Termios, text: &[u8]) -> Effects {
    let mut fx = Effects::default();
    for &byte in text {
        tty.input(termios, byte, &mut fx);
    }
    fx
}

fn read(tty: &mut Discipline, termios: &Termios, len: usize) -> Vec<u8> {
    let mut buffer = alloc::vec![0; len];
    let (n, _) = tty.read(termios, &mut buffer);
    buffer.truncate(n);
    buffer
}

#[test]
fn a_line_is_edited_echoed_and_read() {
    let (mut tty, termios) = (Discipline::default(), Termios::default());
    let fx = type_in(&mut tty, &termios, b"helo\x7flo\r");
    assert_eq!(fx.echo, b"helo\x08 \x08lo\r\n");
    assert_eq!(read(&mut tty, &termios, 3), b"hel");
    assert_eq!(read(&mut tty, &termios, 99), b"lo\n");
    assert_eq!(tty.available(&termios), 0);
}

#[test]
fn nothing_is_read_before_the_line_ends() {
    let (mut tty, termios) = (Discipline::default(), Termios::default());
    type_in(&mut tty, &termios, b"abc");
    assert_eq!(tty.available(&termios), 0);
    type_in(&mut tty, &termios, b"\x04");
    assert_eq!(read(&mut tty, &termios, 99), b"abc");
    type_in(&mut tty, &termios, b"\x04");
    let mut buffer = [0; 4];
    assert_eq!(tty.available(&termios), 1);
    assert_eq!(tty.read(&termios, &mut buffer), (0, true));
}

#[test]
fn words_and_lines_are_killed() {
    let (mut tty, termios) = (Discipline::default(), Termios::default());
    let fx = type_in(&mut tty, &termios, b"one two  \x17");
    assert_eq!(fx.echo, [&b"one two  "[..], &b"\x08 \x08".repeat(5)].concat());
    let fx = type_in(&mut tty, &termios, b"\x15x\n");
    assert_eq!(fx.echo, [&b"\x08 \x08".repeat(4)[..], b"x\r\n"].concat());
    assert_eq!(read(&mut tty, &termios, 99), b"x\n");
}

#[test]
fn a_character_of_several_bytes_is_erased_as_one() {
    let mut termios = Termios::default();
    termios.iflag |= c::IUTF8;
    let mut tty = Discipline::default();
    let fx = type_in(&mut tty, &termios, "é\x7f".as_bytes());
    assert_eq!(fx.echo, ["é".as_bytes(), b"\x08 \x08"].concat());
    assert_eq!(tty.items.len(), 0);
}

#[test]
fn signals_flush_and_show_as_control_characters() {
    let (mut tty, termios) = (Discipline::default(), Termios::default());
    let fx = type_in(&mut tty, &termios, b"abc\x03");
    assert_eq!((fx.signals.as_slice(), fx.echo.as_slice()), (&[SIGINT][..], &b"abc^C"[..]));
    assert!(fx.flush_output);
    type_in(&mut tty, &termios, b"\n");
    assert_eq!(read(&mut tty, &termios, 9), b"\n");
}

#[test]
fn flow_control_stops_and_starts() {
    let (mut tty, termios) = (Discipline::default(), Termios::default());
    assert_eq!(type_in(&mut tty, &termios, b"\x13").stop, Some(true));
    assert!(tty.stopped);
    assert_eq!(type_in(&mut tty, &termios, b"\x11").stop, Some(false));
}

#[test]
fn the_next_character_is_taken_literally() {
    let (mut tty, termios) = (Discipline::default(), Termios::default());
    let fx = type_in(&mut tty, &termios, b"\x16\x03\n");
    assert_eq!(fx.echo, b"^\x08^C\r\n");
    assert!(fx.signals.is_empty());
    assert_eq!(read(&mut tty, &termios, 9), b"\x03\n");
}

#[test]
fn a_tab_is_erased_to_where_it_began() {
    let (mut tty, termios) = (Discipline::default(), Termios::default());
    let fx = type_in(&mut tty, &termios, b"ab\t\x7f");
    assert_eq!(fx.echo, [&b"ab\t"[..], &b"\x08".repeat(6)].concat());
}

#[test]
fn raw_mode_gives_every_byte_at_once() {
    let mut termios = Termios::default();
    termios.lflag &= !(c::ICANON | c::ECHO | c::ISIG);
    termios.iflag = 0;
    let mut tty = Discipline::default();
    assert_eq!(type_in(&mut tty, &termios, b"a\x03\r"), Effects::default());
    assert_eq!(read(&mut tty, &termios, 9), b"a\x03\r");
}

#[test]
fn a_full_buffer_drops_input_but_not_the_end_of_the_line() {
    let (mut tty, termios) = (Discipline::default(), Termios::default());
    type_in(&mut tty, &termios, &alloc::vec![b'x'; 5000]);
    assert!(tty.has_room(&termios));
    type_in(&mut tty, &termios, b"\n");
    assert!(!tty.has_room(&termios));
    let line = read(&mut tty, &termios, 9999);
    assert_eq!((line.len(), line[line.len() - 1]), (CAPACITY, b'\n'));
}

#[test]
fn output_is_processed_as_set() {
    let (mut tty, mut termios) = (Discipline::default(), Termios::default());
    let mut out = Vec::new();
    for &byte in b"a\tb\n" {
        tty.put(&termios, byte, &mut out);
    }
    assert_eq!(out, b"a\tb\r\n");
    termios.oflag |= c::XTABS;
    out.clear();
    for &byte in b"ab\tc" {
        tty.put(&termios, byte, &mut out);
    }
    assert_eq!(out, b"ab      c");
}
