//! The peers' configurations, as an operator would write them who knows the proxy and wants it fast and
//! robust. No access log; connections to workers are kept; workers are chosen at random.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::certificate::Certificate;

/// A proxy's settings.
pub struct Settings<'a> {
    pub listen: SocketAddr,
    /// The address and certificate for TLS, if it serves TLS too.
    pub tls: Option<(SocketAddr, &'a Certificate)>,
    pub workers: &'a [SocketAddr],
    pub posts: Posts,
    /// Connections that it must have room for, including connections to workers.
    pub connections: usize,
}

/// Whether a POST is sent to another worker when the first may have received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posts {
    Once,
    Retried,
}

pub fn nginx(settings: &Settings<'_>) -> String {
    let Settings { listen, connections, .. } = settings;
    let servers = lines(settings.workers, |addr| format!("server {addr} max_fails=1 fail_timeout=1s;"));
    let tls = settings.tls.map_or_else(String::new, |(addr, files)| {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        format!("listen {addr} ssl backlog=4096; ssl_certificate {certificate}; ssl_certificate_key {key};")
    });
    let next = match settings.posts {
        Posts::Once => "",
        Posts::Retried => " non_idempotent",
    };
    // It has two descriptors for each client. Large bodies go through memory and not through files. An upload
    // of 1 MiB costs it a quarter of its cost with shipped settings, and two thirds of its cost unbuffered.
    format!(
        "user root;
worker_processes 1;
worker_rlimit_nofile {files};
pid nginx.pid;
error_log stderr crit;
daemon off;
events {{ worker_connections {connections}; use epoll; multi_accept on; }}
http {{
  access_log off;
  server_tokens off;
  tcp_nodelay on;
  keepalive_timeout 75s;
  keepalive_requests 1000000000;
  client_max_body_size 2m;
  proxy_temp_path proxy; client_body_temp_path body; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  upstream workers {{
    random;
    {servers}keepalive 512; keepalive_requests 1000000000; keepalive_timeout 60s;
  }}
  server {{
    listen {listen} backlog=4096;
    {tls}
    location / {{
      proxy_pass http://workers; proxy_http_version 1.1;
      proxy_set_header Connection \"\"; proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_connect_timeout 2s; proxy_read_timeout 60s;
      proxy_next_upstream error timeout{next}; proxy_next_upstream_tries 4;
      proxy_max_temp_file_size 0; client_body_buffer_size 1m;
    }}
  }}
}}
",
        files = connections * 2 + 4096,
    )
}

pub fn haproxy(settings: &Settings<'_>) -> String {
    let Settings { listen, connections, .. } = settings;
    let tls = settings.tls.map_or_else(String::new, |(addr, files)| {
        format!("bind {addr} backlog 4096 ssl crt {}", files.both.display())
    });
    let retries = match settings.posts {
        Posts::Once => "http-request disable-l7-retry if METH_POST",
        Posts::Retried => "",
    };
    let mut number = 0;
    let servers = lines(settings.workers, |addr| {
        number += 1;
        format!("server w{number} {addr}")
    });
    format!(
        "global
  nbthread 1
  maxconn {connections}
  tune.bufsize 16384
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 60s
  timeout http-keep-alive 75s
  option http-keep-alive
  option redispatch 1
  retries 3
  retry-on conn-failure empty-response response-timeout
  http-reuse always
  option forwardfor
frontend f
  bind {listen} backlog 4096
  {tls}
  {retries}
  default_backend b
backend b
  balance random
  default-server check inter 1s fall 1 rise 1 observe layer4 error-limit 1 on-error mark-down pool-max-conn 512
  {servers}
"
    )
}

pub fn caddy(settings: &Settings<'_>) -> String {
    let addresses: Vec<String> = settings.workers.iter().map(ToString::to_string).collect();
    let site = format!(
        "bind 127.0.0.1
  reverse_proxy {} {{
    lb_policy random
    lb_try_duration 2s
    lb_try_interval 10ms
    fail_duration 1s
    transport http {{
      dial_timeout 2s
      keepalive 60s
      keepalive_idle_conns_per_host 512
    }}
  }}",
        addresses.join(" ")
    );
    let mut text = format!(
        "{{\n  admin off\n  auto_https off\n  log {{\n    level ERROR\n  }}\n}}\n\
         http://:{} {{\n  {site}\n}}\n",
        settings.listen.port()
    );
    if let Some((addr, files)) = settings.tls {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        write!(text, "https://:{} {{\n  tls {certificate} {key}\n  {site}\n}}\n", addr.port())
            .expect("a string takes all");
    }
    text
}

fn lines(workers: &[SocketAddr], line: impl FnMut(&SocketAddr) -> String) -> String {
    workers.iter().map(line).fold(String::new(), |text, line| text + &line + "\n    ")
}
