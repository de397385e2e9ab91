//! NATS for those who must not take part in what they measure. A client for everybody spends a task, a channel and a few allocations on each
//! message, which at ten thousand a second is much of the two processors that the node under load has too. Here a burst is one write, and
//! what came is one read; all that these connections can do is publish, or listen to one subject (decision 0021).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::str::{self, Split};
use std::time::{Duration, Instant};

/// What is read at once, and longer than any message of a node under load.
const BUFFER_BYTES: usize = 256 << 10;
const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1}\r\nPING\r\n";
/// How long the server may take to say that it is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a line, and of a message.
const END: &[u8] = b"\r\n";

/// A connection to the server at `nats://address:port` that has answered once.
fn connect(nats: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(nats.trim_start_matches("nats://"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    (&stream).write_all(CONNECT)?;
    wait_for_pong(&stream)?;
    Ok(stream)
}

/// Byte by byte, so that what follows stays for who reads next.
fn wait_for_pong(stream: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::with_capacity(1, stream);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        match line.trim_end() {
            "PONG" => return Ok(()),
            error if error.starts_with("-ERR") => return Err(io::Error::other(error.to_owned())),
            _ => line.clear(),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Publishes, in bursts. It never hears whether the server is still there, and so is taken for dead after four minutes.
#[derive(Debug)]
pub(super) struct Publisher {
    stream: TcpStream,
    burst: Vec<u8>,
}

impl Publisher {
    pub(super) fn connect(nats: &str) -> io::Result<Self> {
        Ok(Self { stream: connect(nats)?, burst: Vec::new() })
    }

    /// Adds a message to the burst; its answer is expected at `reply`, unless that is empty.
    pub(super) fn add(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        let gap = if reply.is_empty() { "" } else { " " };
        write!(self.burst, "PUB {subject}{gap}{reply} {}\r\n", payload.len()).expect("memory takes it");
        self.burst.extend_from_slice(payload);
        self.burst.extend_from_slice(END);
    }

    /// Sends the burst.
    pub(super) fn send(&mut self) -> io::Result<()> {
        let sent = self.stream.write_all(&self.burst);
        self.burst.clear();
        sent
    }
}

/// A message that came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'buffer> {
    pub(super) subject: &'buffer str,
    /// Where its answer is expected; empty when none is.
    pub(super) reply: &'buffer str,
    pub(super) payload: &'buffer [u8],
}

/// Listens to a subject.
#[derive(Debug)]
pub(super) struct Subscriber {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Subscriber {
    /// Listens from now on; no wait for what comes is longer than `patience`.
    pub(super) fn connect(nats: &str, subject: &str, patience: Duration) -> io::Result<Self> {
        let stream = connect(nats)?;
        (&stream).write_all(format!("SUB {subject} 1\r\nPING\r\n").as_bytes())?;
        wait_for_pong(&stream)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES], filled: 0 })
    }

    /// Its connection, for whoever is to end it.
    pub(super) fn connection(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Waits until something comes, and shows each message with the time at which all of them were read. An error when nothing came in
    /// time, or nothing will.
    pub(super) fn receive(&mut self, mut each: impl FnMut(Message<'_>, Instant)) -> io::Result<()> {
        let count = self.stream.read(&mut self.buffer[self.filled..])?;
        let now = Instant::now();
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.filled += count;
        let mut rest = &self.buffer[..self.filled];
        while let Some((line, after)) = split_line(rest) {
            let mut words = line.split(' ');
            match words.next() {
                Some("MSG") => {
                    let (Some(message), length) = message(words, after)? else { break };
                    each(message, now);
                    rest = &after[length..];
                }
                Some("PING") => {
                    (&self.stream).write_all(b"PONG\r\n")?;
                    rest = after;
                }
                // Said again whenever servers come or go.
                Some("INFO") => rest = after,
                _ => return Err(io::Error::other(line.to_owned())),
            }
        }
        let left = rest.len();
        let begin = self.filled - left;
        self.buffer.copy_within(begin..self.filled, 0);
        self.filled = left;
        Ok(())
    }
}

/// A line without its end, and what follows it.
fn split_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.windows(END.len()).position(|two| two == END)?;
    Some((str::from_utf8(&bytes[..end]).ok()?, &bytes[end + END.len()..]))
}

/// The message of which the line goes on with these words and that begins with these bytes, and its length there; none while it is not
/// complete.
fn message<'buffer>(
    mut words: Split<'buffer, char>,
    bytes: &'buffer [u8],
) -> io::Result<(Option<Message<'buffer>>, usize)> {
    let (Some(subject), Some(_id), Some(third)) = (words.next(), words.next(), words.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let (reply, length) = words.next().map_or(("", third), |fourth| (third, fourth));
    let length: usize = length.parse().map_err(io::Error::other)?;
    let payload = bytes.get(..length).filter(|_| bytes.len() >= length + END.len());
    Ok((payload.map(|payload| Message { subject, reply, payload }), length + END.len()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const CAME: &[u8] = b"MSG a.7 1 5\r\none\r\n\r\nINFO {}\r\nPING\r\nMSG a.8 1 answer 3\r\ntwo\r\n";

    /// A server that says these parts, and waits for a `PONG` if it is asked for one, before it goes.
    fn serve(parts: Vec<&'static [u8]>, is_answered: bool) -> (String, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("nats://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            (&stream).write_all(b"INFO {}\r\n").unwrap();
            let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
            for _ in 0..2 {
                lines.find(|line| line == "PING").unwrap();
                (&stream).write_all(b"PONG\r\n").unwrap();
            }
            for part in parts {
                (&stream).write_all(part).unwrap();
            }
            if is_answered {
                lines.find(|line| line == "PONG").unwrap();
            }
        });
        (address, server)
    }

    fn hear(parts: Vec<&'static [u8]>) -> Vec<(String, String, Vec<u8>)> {
        let (address, server) = serve(parts, true);
        let mut subscriber = Subscriber::connect(&address, "a.*", PATIENCE).unwrap();
        let mut heard = Vec::new();
        let mut add = |message: Message<'_>, _| {
            heard.push((message.subject.to_owned(), message.reply.to_owned(), message.payload.to_owned()));
        };
        while subscriber.receive(&mut add).is_ok() {}
        // Whatever it still waits for does not come.
        drop(subscriber);
        server.join().unwrap();
        heard
    }

    #[test]
    fn messages_are_whole_however_they_come() {
        let expected = [
            ("a.7".to_owned(), String::new(), b"one\r\n".to_vec()),
            ("a.8".to_owned(), "answer".to_owned(), b"two".to_vec()),
        ];
        assert_eq!(hear(vec![CAME]), expected);
        assert_eq!(hear(CAME.chunks(1).collect()), expected);
        assert_eq!(hear(CAME.chunks(7).collect()), expected);
    }

    #[test]
    fn what_is_no_message_ends_it() {
        let (address, server) = serve(vec![b"MSG a.7 1 nonsense\r\nMSG a.8 1 3\r\ntwo\r\n"], false);
        let mut subscriber = Subscriber::connect(&address, "a.*", PATIENCE).unwrap();
        assert!(subscriber.receive(|_, _| panic!("no message came")).is_err());
        server.join().unwrap();
    }
}
