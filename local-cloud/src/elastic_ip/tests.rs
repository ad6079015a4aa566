use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::addresses::unused;

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// Returns a target whose host always has power.
fn at(address: SocketAddr) -> Target {
    Target { address, power: watch::channel(Power::On).1 }
}

async fn forward(target: Target) -> (SocketAddr, ElasticIps) {
    let (public, mut forwards) = (free_address(), ElasticIps::default());
    forwards.apply(&[(public, target)].into()).await.expect("forwarded");
    (public, forwards)
}

/// Connects from an address of this machine.
async fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("every loopback address can be had");
    socket.connect(to).await.expect("connected")
}

fn free_address() -> SocketAddr {
    unused().expect("an address")
}

/// Answers each connection, at its end, with a name and the bytes it got.
async fn server(name: &'static str) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut sent = String::from(name);
                client.read_to_string(&mut sent).await.expect("readable");
                client.write_all(sent.as_bytes()).await.expect("writable");
            });
        }
    });
    address
}

async fn answer(mut client: TcpStream, text: &str) -> String {
    client.write_all(text.as_bytes()).await.expect("writable");
    client.shutdown().await.expect("half closed");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("readable");
    answer
}

#[tokio::test]
async fn a_half_closed_connection_is_answered() {
    let (public, mut forwards) = (free_address(), ElasticIps::default());
    forwards.apply(&[(public, at(server("a:").await))].into()).await.expect("forwarded");
    let client = TcpStream::connect(public).await.expect("connected");
    assert_eq!(answer(client, "hello").await, "a:hello");
}

#[tokio::test]
async fn a_moved_forward_leaves_open_connections_where_they_are() {
    let (public, mut forwards) = (free_address(), ElasticIps::default());
    let (first, second) = (listener().await, server("b:").await);
    forwards.apply(&[(public, at(first.1))].into()).await.expect("forwarded");
    let old = TcpStream::connect(public).await.expect("connected");
    let (mut served, _) = first.0.accept().await.expect("forwarded");
    forwards.apply(&[(public, at(second))].into()).await.expect("moved");
    let new = TcpStream::connect(public).await.expect("connected");
    assert_eq!(answer(new, "new").await, "b:new");
    let serve = async {
        let mut sent = String::new();
        served.read_to_string(&mut sent).await.expect("readable");
        served.write_all(format!("a:{sent}").as_bytes()).await.expect("writable");
        drop(served);
    };
    assert_eq!(tokio::join!(answer(old, "old"), serve).0, "a:old");
}

#[tokio::test]
async fn a_removed_forward_cuts_connections_and_frees_its_port() {
    let (public, mut forwards) = (free_address(), ElasticIps::default());
    forwards.apply(&[(public, at(server("a:").await))].into()).await.expect("forwarded");
    let mut client = TcpStream::connect(public).await.expect("connected");
    forwards.apply(&Wanted::new()).await.expect("removed");
    assert!(TcpListener::bind(public).await.is_ok(), "the port is not free");
    // Closed or reset; it only must not wait for an answer.
    let ended = client.read(&mut [0; 8]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn one_taken_port_does_not_keep_the_others() {
    let (taken, free) = (listener().await, free_address());
    let mut forwards = ElasticIps::default();
    let server = server("a:").await;
    let target = || at(server);
    let error = forwards.apply(&[(taken.1, target()), (free, target())].into()).await.expect_err("taken");
    assert!(error.to_string().contains(&taken.1.port().to_string()), "{error}");
    assert_eq!(forwards.addresses(), [(free, server)]);
    let public = taken.1;
    drop(taken);
    forwards.apply(&[(public, target()), (free, target())].into()).await.expect("free by now");
}

#[tokio::test]
async fn the_instance_sees_the_address_of_the_client() {
    let (instance, address) = listener().await;
    let (public, _forwards) = forward(at(address)).await;
    for from in [[127, 0, 0, 1], [127, 1, 2, 3], [127, 200, 0, 9]] {
        let _client = connect_from(from, public).await;
        let (_, seen) = instance.accept().await.expect("forwarded");
        assert_eq!(seen.ip(), Ipv4Addr::from(from));
    }
}

#[tokio::test]
async fn a_refused_connection_is_reset() {
    let (public, _forwards) = forward(at(free_address())).await;
    let mut client = TcpStream::connect(public).await.expect("connected");
    let error = client.read(&mut [0; 8]).await.expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_of_the_client_reaches_the_instance() {
    let (instance, address) = listener().await;
    let (public, _forwards) = forward(at(address)).await;
    let client = TcpStream::connect(public).await.expect("connected");
    let (mut served, _) = instance.accept().await.expect("forwarded");
    client.set_zero_linger().expect("settable");
    drop(client);
    let error = served.read(&mut [0; 8]).await.expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// The reset must not wait behind bytes that the instance does not read.
#[tokio::test]
async fn a_reset_overtakes_unread_bytes() {
    let (instance, address) = listener().await;
    let (public, _forwards) = forward(at(address)).await;
    let client = TcpStream::connect(public).await.expect("connected");
    let (served, _) = instance.accept().await.expect("forwarded");
    fill(&client).await;
    client.set_zero_linger().expect("settable");
    drop(client);
    let is_reset = served.ready(tokio::io::Interest::ERROR);
    timeout(Duration::from_secs(20), is_reset).await.expect("the instance is told").expect("readable");
}

/// Answer and reset may both have arrived before the forward looks at its sockets for the first time.
#[tokio::test]
async fn a_reset_of_the_instance_reaches_the_client_after_the_answer() {
    const ROUNDS: usize = 300;
    let instance = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (public, _forwards) = forward(at(instance.local_addr().expect("bound"))).await;
    std::thread::spawn(move || {
        for _ in 0..ROUNDS {
            let (mut served, _) = instance.accept().expect("forwarded");
            std::io::Write::write_all(&mut served, b"answer").expect("writable");
            socket2::SockRef::from(&served).set_linger(Some(Duration::ZERO)).expect("settable");
        }
    });
    for _ in 0..ROUNDS {
        let mut client = TcpStream::connect(public).await.expect("connected");
        let mut answer = Vec::new();
        let error = client.read_to_end(&mut answer).await.expect_err("reset");
        assert_eq!((answer.as_slice(), error.kind()), (&b"answer"[..], ErrorKind::ConnectionReset));
    }
}

/// Writes until neither side's buffers take more; returns the bytes that were taken.
async fn fill(stream: &TcpStream) -> usize {
    let mut taken = 0;
    while let Ok(Ok(())) = timeout(Duration::from_millis(500), stream.writable()).await {
        taken += stream.try_write(&[0; 4096]).unwrap_or(0);
    }
    taken
}

#[tokio::test]
async fn little_fits_between_a_sender_and_who_does_not_read() {
    let (instance, address) = listener().await;
    let (public, _forwards) = forward(at(address)).await;
    let directly = TcpStream::connect(address).await.expect("connected");
    let (_unread, _) = instance.accept().await.expect("connected");
    let through = TcpStream::connect(public).await.expect("connected");
    let (_unread_too, _) = instance.accept().await.expect("forwarded");
    let (directly, through) = (fill(&directly).await, fill(&through).await);
    // Four of the local cloud's buffers, which the kernel doubles.
    assert!(through < directly + 8 * 32 * 1024, "{through} bytes through the address, {directly} directly");
}

#[tokio::test]
async fn a_host_without_power_is_not_heard_to_end() {
    let (instance, address) = listener().await;
    let (power, seen) = watch::channel(Power::On);
    let (public, mut forwards) = forward(Target { address, power: seen }).await;
    let mut client = TcpStream::connect(public).await.expect("connected");
    let (served, _) = instance.accept().await.expect("forwarded");
    power.send_replace(Power::Dead);
    drop((served, instance));
    // Once new connections are not taken, the loss of power has been noticed: clients do not see it.
    let newcomer = async || timeout(Duration::from_millis(300), TcpStream::connect(public)).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while let Ok(connected) = newcomer().await {
        assert!(connected.is_ok(), "refused: {connected:?}");
        assert!(tokio::time::Instant::now() < deadline, "connections are still accepted");
    }
    client.write_all(b"hello?").await.expect("nothing says that it is gone");
    assert!(timeout(Duration::from_millis(300), client.read(&mut [0; 8])).await.is_err(), "it was answered");
    forwards.apply(&[(public, at(server("b:").await))].into()).await.expect("moved");
    let client = TcpStream::connect(public).await.expect("connected");
    assert_eq!(answer(client, "new").await, "b:new");
}

#[tokio::test]
async fn a_host_without_power_resets_no_connection() {
    let (instance, address) = listener().await;
    let (power, seen) = watch::channel(Power::On);
    let (public, _forwards) = forward(Target { address, power: seen }).await;
    let mut client = TcpStream::connect(public).await.expect("connected");
    let (served, _) = instance.accept().await.expect("forwarded");
    power.send_replace(Power::Dead);
    served.set_zero_linger().expect("a reset");
    drop(served);
    assert!(timeout(Duration::from_millis(300), client.read(&mut [0; 8])).await.is_err(), "it was reset");
}

/// More than the unintended limits of a forward: its queue, the ports of one address, half of the usual 1024
/// open files.
#[tokio::test]
async fn a_flood_reaches_the_instance_whole() {
    const SOURCES: u8 = 4;
    const EACH: usize = 500;
    crate::open_files::raise();
    let (instance, address) = listener().await;
    let (public, _forwards) = forward(at(address)).await;
    for to in [address, public] {
        let accept = async {
            let mut held = Vec::new();
            let mut sources = BTreeSet::new();
            while held.len() < usize::from(SOURCES) * EACH {
                let (served, from) = instance.accept().await.expect("a connection");
                sources.insert(from.ip());
                held.push(served);
            }
            (held, sources)
        };
        let flood = async {
            let mut clients = Vec::new();
            for _ in 0..EACH {
                for source in 1..=SOURCES {
                    clients.push(connect_from([127, 33, 0, source], to).await);
                }
            }
            clients
        };
        let both = async { tokio::join!(accept, flood) };
        let both = timeout(Duration::from_secs(60), both).await;
        let ((held, sources), clients) = both.expect("each connection reaches the instance");
        assert_eq!((held.len(), sources.len()), (clients.len(), usize::from(SOURCES)), "at {to}");
    }
}
