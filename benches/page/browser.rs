//! Somebody who looks at the page: a session's cookie, and one connection for each answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Who signs in.
pub const NAME: &str = "admin";
/// With what.
pub const PASSWORD: &str = "correct-horse-battery";

/// A browser with its session.
#[derive(Clone)]
pub struct Browser {
    address: SocketAddr,
    language: &'static str,
    cookie: String,
}

/// What came back.
pub struct Answer {
    /// Of the status line.
    pub status: u16,
    head: String,
    /// The page.
    pub body: Vec<u8>,
    /// From the first byte of connecting to the last of the answer.
    pub took: Duration,
}

impl Browser {
    /// Signs in.
    pub fn sign_in(address: SocketAddr, language: &'static str) -> Self {
        let mut browser = Self {
            address,
            language,
            cookie: String::new(),
        };
        let answer = browser.ask(
            "POST",
            "/sign-in",
            &format!("name={NAME}&password={PASSWORD}"),
        );
        assert_eq!(answer.status, 303, "{}", answer.head);
        assert!(!browser.cookie.is_empty(), "{}", answer.head);
        browser
    }

    /// The same session with the page in another language.
    pub fn speaking(&self, language: &'static str) -> Self {
        Self {
            language,
            ..self.clone()
        }
    }

    /// A page, which must be there.
    pub fn get(&mut self, path: &str) -> Answer {
        let answer = self.ask("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.head);
        answer
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let began = Instant::now();
        let mut stream = self.send(method, path, body);
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        let took = began.elapsed();
        let end = read.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
        let body = read.split_off(end);
        let head = String::from_utf8(read).unwrap();
        if let Some((_, cookie)) = head.split_once("set-cookie: pryamo=") {
            let cookie = cookie.split(';').next().unwrap();
            cookie.clone_into(&mut self.cookie);
        }
        let status = head.get(9..12).unwrap().parse().unwrap();
        Answer {
            status,
            head,
            body,
            took,
        }
    }

    /// Sends a request of HTTP/1.0: the answer ends with its connection and comes in one piece.
    pub fn send(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nCookie: pryamo={}\r\nAccept-Language: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            self.cookie,
            self.language,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }
}
