//! The cluster's DNS server: answers from [`zone`](super::zone) on UDP and TCP and counts.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hickory_proto::op::{Edns, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use socket2::SockRef;
use tokio::sync::oneshot;

use super::zone::{self, Answer, Client};
use super::{DemoError, Namespace};

/// Connections without a query for this long are closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Answers that may wait on one TCP connection.
const RESPONSE_BUFFER: usize = 64;
/// Payload size offered in EDNS, octets; safe against fragmentation (DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1232;

/// Queries seen since the start, by transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueryCounts {
    /// Over UDP.
    pub udp: u64,
    /// Over TCP.
    pub tcp: u64,
}

impl QueryCounts {
    /// What came in after `earlier` was taken.
    pub fn since(self, earlier: QueryCounts) -> QueryCounts {
        QueryCounts { udp: self.udp - earlier.udp, tcp: self.tcp - earlier.tcp }
    }
}

/// A running server; dropping it closes its sockets.
#[derive(Debug)]
pub(super) struct KubeDns {
    counters: Arc<Counters>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl KubeDns {
    /// Serves at port 53 of the addresses inside `namespace`; the sockets are bound when this returns.
    pub(super) fn start(namespace: &Namespace, addresses: &[Ipv4Addr]) -> Result<KubeDns, DemoError> {
        let fail = || DemoError::io("start the cluster's DNS server");
        let bind = || addresses.iter().map(|address| bind(*address)).collect::<io::Result<Vec<_>>>();
        let sockets = namespace.run(bind)?.map_err(fail())?;
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = oneshot::channel();
        let handler = Handler(Arc::clone(&counters));
        let thread = thread::Builder::new()
            .name("kube-dns".into())
            .spawn(move || {
                if let Err(error) = serve(handler, sockets, stopped) {
                    tracing::error!(%error, "the cluster's DNS server ended");
                }
            })
            .map_err(fail())?;
        Ok(KubeDns { counters, stop: Some(stop), thread: Some(thread) })
    }

    /// Queries so far.
    pub(super) fn queries(&self) -> QueryCounts {
        QueryCounts {
            udp: self.counters.udp.load(Ordering::Relaxed),
            tcp: self.counters.tcp.load(Ordering::Relaxed),
        }
    }
}

impl Drop for KubeDns {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

fn bind(address: Ipv4Addr) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind((address, 53))?;
    let tcp = TcpListener::bind((address, 53))?;
    // hickory-server writes length and message apart: with Nagle's algorithm the second waits for an
    // acknowledgement that may be delayed by 40 ms. Accepted connections inherit the option.
    SockRef::from(&tcp).set_tcp_nodelay(true)?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

fn serve(
    handler: Handler,
    sockets: Vec<(UdpSocket, TcpListener)>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut server = Server::new(handler);
        for (udp, tcp) in sockets {
            server.register_socket(tokio::net::UdpSocket::from_std(udp)?);
            let listener = tokio::net::TcpListener::from_std(tcp)?;
            server.register_listener(listener, IDLE_TIMEOUT, RESPONSE_BUFFER);
        }
        // The sender is never used, only dropped.
        let _ = stopped.await;
        Ok(())
    })
}

#[derive(Debug, Default)]
struct Counters {
    udp: AtomicU64,
    tcp: AtomicU64,
}

struct Handler(Arc<Counters>);

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let (counter, transport) = match request.protocol() {
            Protocol::Udp => (&self.0.udp, "udp"),
            _ => (&self.0.tcp, "tcp"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let client = Client { address: request.src(), transport };
        let Answer { delay, code, answers, soa } = answer(request, client);
        tokio::time::sleep(delay).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let Some(code) = code else { return unsent(metadata) };
        metadata.authoritative = code != ResponseCode::Refused;
        metadata.response_code = code;
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD);
        let mut builder = MessageResponseBuilder::from_message_request(request);
        // OPT only for those who sent one (RFC 6891 §7).
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let response = builder.build(metadata, &answers, [], soa.as_ref(), []);
        match response_handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::warn!(%error, "an answer could not be sent");
                unsent(metadata)
            }
        }
    }
}

fn unsent(metadata: Metadata) -> ResponseInfo {
    let counts = HeaderCounts::default();
    ResponseInfo::from(hickory_proto::op::Header { metadata, counts })
}

fn answer(request: &Request, client: Client) -> Answer {
    if request.metadata.op_code != OpCode::Query {
        return Answer::failure(ResponseCode::NotImp);
    }
    match request.request_info() {
        Ok(info) => {
            let name = info.query.name().to_string();
            zone::answer(&name, info.query.query_type(), client)
        }
        Err(_) => Answer::failure(ResponseCode::FormErr),
    }
}
