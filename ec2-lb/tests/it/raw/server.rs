//! A TCP server of threads that ends, connections and all, when it is dropped.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_stopped: AtomicBool,
    open: Mutex<HashMap<usize, TcpStream>>,
}

impl Server {
    /// Runs `serve` on each connection, in a thread of its own, with the connection's number.
    pub(crate) fn start(serve: impl Fn(&TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let (watched, serve) = (Arc::clone(&shared), Arc::new(serve));
        let acceptor = std::thread::spawn(move || {
            let mut threads = Vec::new();
            for (number, stream) in listener.incoming().enumerate() {
                if watched.is_stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                stream.set_nodelay(true).expect("a socket option");
                let clone = stream.try_clone().expect("a descriptor");
                watched.open.lock().expect("not poisoned").insert(number, clone);
                let (watched, serve) = (Arc::clone(&watched), Arc::clone(&serve));
                threads.push(std::thread::spawn(move || {
                    serve(&stream, number);
                    watched.open.lock().expect("not poisoned").remove(&number);
                }));
            }
            for stream in watched.open.lock().expect("not poisoned").values() {
                // A connection that has ended already is as good.
                drop(stream.shutdown(Shutdown::Both));
            }
            for thread in threads {
                drop(thread.join());
            }
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.addr));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}
