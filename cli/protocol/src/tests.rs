use super::*;

fn start() -> ToGuest {
    ToGuest::Start(Start {
        argv: vec![b"sh".to_vec(), b"-c".to_vec(), b"".to_vec()],
        env: vec![b"A=b".to_vec()],
        cwd: b"/tmp".to_vec(),
        user: b"nobody".to_vec(),
        hostname: b"quintet".to_vec(),
        terminal: Some(WindowSize { rows: 24, columns: 80 }),
        volumes: vec![Volume { tag: b"quintet.0".to_vec(), place: b"/mnt/x".to_vec(), read_only: true }],
    })
}

fn to_guest() -> Vec<ToGuest> {
    vec![
        start(),
        ToGuest::Start(Start::default()),
        ToGuest::StdinEnd { bytes: u64::MAX },
        ToGuest::CloseOutput(Output::Stdout),
        ToGuest::CloseOutput(Output::Stderr),
        ToGuest::Signal(2),
        ToGuest::Resize(WindowSize { rows: 1, columns: 65535 }),
        ToGuest::PowerOff,
    ]
}

fn to_host() -> Vec<ToHost> {
    vec![
        ToHost::Ready { version: VERSION },
        ToHost::Exited { ending: Ending::Code(7), stdout_bytes: 1 << 40, stderr_bytes: 0 },
        ToHost::Exited { ending: Ending::Signal(11), stdout_bytes: 0, stderr_bytes: 3 },
        ToHost::Failed { status: 127, what: "x: not found".into() },
    ]
}

#[test]
fn messages_survive_the_wire_in_any_pieces() {
    let stream: Vec<u8> = to_guest().iter().flat_map(encode).collect();
    for piece in [1, 2, 3, 7, 4096] {
        let mut decoder = Decoder::default();
        let mut got = Vec::new();
        for bytes in stream.chunks(piece) {
            decoder.push(bytes);
            while let Some(message) = decoder.decode::<ToGuest>().expect("well formed") {
                got.push(message);
            }
        }
        assert_eq!(got, to_guest());
    }
    for message in to_host() {
        let mut decoder = Decoder::default();
        decoder.push(&encode(&message));
        assert_eq!(decoder.decode(), Ok(Some(message)));
        assert_eq!(decoder.decode::<ToHost>(), Ok(None));
    }
}

#[test]
fn every_truncation_is_refused() {
    for message in to_guest() {
        let frame = encode(&message);
        for length in 0..frame.len() - 4 {
            let mut cut = (length as u32).to_le_bytes().to_vec();
            cut.extend_from_slice(&frame[4..4 + length]);
            let mut decoder = Decoder::default();
            decoder.push(&cut);
            assert!(decoder.decode::<ToGuest>().is_err(), "{message:?} cut to {length}");
        }
    }
}

#[test]
fn bad_frames_are_errors() {
    let decode = |bytes: &[u8]| {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        decoder.decode::<ToGuest>()
    };
    assert_eq!(decode(&[0xff; 4]), Err(DecodeError::TooLong));
    assert_eq!(decode(&[1, 0, 0, 0, 99]), Err(DecodeError::UnknownTag(99)));
    assert_eq!(decode(&[2, 0, 0, 0, 6, 6]), Err(DecodeError::TrailingBytes));
    assert_eq!(decode(&[5, 0, 0, 0, 1, 255, 255, 255, 255]), Err(DecodeError::Truncated));
    assert_eq!(decode(&[4, 0, 0, 0, 6]), Ok(None));
}

#[test]
fn noise_never_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let mut frame = encode(&start());
        for _ in 0..random() % 8 {
            let at = random() as usize % frame.len();
            frame[at] = random() as u8;
        }
        let mut decoder = Decoder::default();
        decoder.push(&frame);
        let _ = decoder.decode::<ToGuest>();
        let mut decoder = Decoder::default();
        decoder.push(&frame);
        let _ = decoder.decode::<ToHost>();
    }
}

#[test]
fn endings_as_a_shell_shows_them() {
    assert_eq!(Ending::Code(7).shell_status(), 7);
    assert_eq!(Ending::Signal(11).shell_status(), 139);
}
