//! One connection, whatever carries it.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;

/// A connection to a client or to a backend.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP, as the server.
    TlsServer(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS over TCP, as the client.
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// None any more: it was taken away to be closed.
    Closed,
}

impl Stream {
    /// Connects to a host and port.
    ///
    /// # Errors
    /// What the system says.
    pub async fn connect_tcp(host: &str, port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((host, port)).await?;
        Self::tcp(stream)
    }

    /// Wraps a TCP stream: no delay, and keepalive, so that a peer that is
    /// gone is noticed.
    ///
    /// # Errors
    /// What the system says.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(std::time::Duration::from_secs(30))
            .with_interval(std::time::Duration::from_secs(10))
            .with_retries(3);
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(std::time::Duration::from_secs(60)))?;
        Ok(Self::Tcp(stream))
    }

    /// Connects to the Unix socket of a server in `folder` with `port`.
    ///
    /// # Errors
    /// What the system says.
    pub async fn connect_unix(folder: &str, port: u16) -> io::Result<Self> {
        let path = Path::new(folder).join(format!(".s.PGSQL.{port}"));
        Ok(Self::Unix(UnixStream::connect(path).await?))
    }

    /// Encrypts a plain TCP connection, as the client.
    ///
    /// # Errors
    /// A failed handshake or verification, or a connection that is not TCP.
    pub async fn encrypt(self, host: &str, config: Arc<rustls::ClientConfig>) -> io::Result<Self> {
        let Self::Tcp(stream) = self else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "TLS needs a TCP connection"));
        };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = tokio_rustls::TlsConnector::from(config);
        Ok(Self::TlsClient(Box::new(connector.connect(name, stream).await?)))
    }

    /// Encrypts a plain TCP connection, as the server.
    ///
    /// # Errors
    /// A failed handshake, or a connection that is not TCP.
    pub async fn accept_tls(self, config: Arc<rustls::ServerConfig>) -> io::Result<Self> {
        let Self::Tcp(stream) = self else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "TLS needs a TCP connection"));
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        Ok(Self::TlsServer(Box::new(acceptor.accept(stream).await?)))
    }

    /// True if what is said can't be read on the way.
    pub const fn is_private(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Closed => false,
            Self::Unix(_) | Self::TlsServer(_) | Self::TlsClient(_) => true,
        }
    }

    /// True if the connection is encrypted.
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::TlsServer(_) | Self::TlsClient(_))
    }

    /// The certificate that the client has shown; it is trusted, or there would
    /// be no connection.
    pub fn client_certificate(&self) -> Option<&[u8]> {
        match self {
            Self::TlsServer(stream) => {
                stream.get_ref().1.peer_certificates()?.first().map(|first| &first[..])
            }
            Self::Tcp(_) | Self::Unix(_) | Self::TlsClient(_) | Self::Closed => None,
        }
    }

    /// The protocol that the client has agreed to in the handshake.
    pub fn agreed_protocol(&self) -> Option<&[u8]> {
        match self {
            Self::TlsServer(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Tcp(_) | Self::Unix(_) | Self::TlsClient(_) | Self::Closed => None,
        }
    }

    /// The first byte that will be read, left where it is; `None` if the peer
    /// has ended its side. Only of TCP without encryption.
    ///
    /// # Errors
    /// What the system says.
    pub async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        match self {
            Self::Tcp(stream) => {
                let read = stream.peek(&mut byte).await?;
                Ok(byte.first().copied().filter(|_| read > 0))
            }
            Self::Unix(_) | Self::TlsServer(_) | Self::TlsClient(_) | Self::Closed => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }

    /// Fills `buf`.
    ///
    /// # Errors
    /// The peer ends its side before, or what the system says.
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while let Some(rest) = buf.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let read = self.read(rest).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += read;
        }
        Ok(())
    }

    /// Reads what is there, on readiness: no system call if nothing is. Zero
    /// means the peer has ended its side.
    ///
    /// # Errors
    /// What the system says.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        let read = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Self::TlsServer(stream) => Pin::new(&mut **stream).poll_read(cx, &mut buf),
            Self::TlsClient(stream) => Pin::new(&mut **stream).poll_read(cx, &mut buf),
            Self::Closed => return Poll::Ready(Ok(0)),
        };
        ready!(read)?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Whether a read could find something, as far as the runtime has heard.
    /// Asks neither the system nor to be woken; behind TLS it always could.
    #[inline]
    pub fn may_read(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || Ok(())).is_ok(),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || Ok(())).is_ok(),
            Self::TlsServer(_) | Self::TlsClient(_) | Self::Closed => true,
        }
    }

    /// Writes as much as goes at once.
    ///
    /// # Errors
    /// What the system says.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::TlsServer(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            Self::TlsClient(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            Self::Closed => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        match ready!(written) {
            Ok(0) if !bytes.is_empty() => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            other => Poll::Ready(other),
        }
    }

    /// Sends what encryption still holds back.
    ///
    /// # Errors
    /// What the system says.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) | Self::Closed => Poll::Ready(Ok(())),
            Self::TlsServer(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::TlsClient(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::TlsServer(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::TlsClient(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }

    /// Ends this side, and reads until the peer has ended its own. A socket
    /// closed while the peer's bytes are unread is reset, which can take the
    /// last words to the peer with it. Bound it in time.
    pub async fn close(mut self) {
        if std::future::poll_fn(|cx| self.poll_shutdown(cx)).await.is_err() {
            return;
        }
        let mut nobody = [0; 4096];
        while self.read(&mut nobody).await.is_ok_and(|read| read > 0) {}
    }

    /// Writes all of `bytes`. Cancelled, it may have written a part.
    ///
    /// # Errors
    /// What the system says.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            at += std::future::poll_fn(|cx| self.poll_write(cx, rest)).await?;
        }
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Reads what is there. Cancelled, it has read nothing.
    ///
    /// # Errors
    /// What the system says.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read(cx, buf)).await
    }
}
