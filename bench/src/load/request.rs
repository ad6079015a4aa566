//! The two requests of a run, as bytes, and the expected answers.

use super::method::Method;
use super::plan::Plan;
use super::report::Failure;
use crate::backend::reply;

pub struct Requests {
    get: Request,
    post: Request,
    post_percent: u8,
    /// Grows by the percentage of POSTs with each request; at a hundred a POST is due.
    due: u8,
}

pub struct Request {
    pub bytes: Vec<u8>,
    /// Expected content bytes of its answer.
    expected: u64,
}

impl Requests {
    pub fn of(plan: &Plan) -> Self {
        let connection = if plan.churn { "Connection: close\r\n" } else { "" };
        let fields =
            format!("Host: {}\r\nUser-Agent: bench-load\r\nAccept: */*\r\n{connection}", plan.target);
        let get = format!("GET {} HTTP/1.1\r\n{fields}\r\n", plan.path).into_bytes();
        let mut post = format!(
            "POST / HTTP/1.1\r\n{fields}Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            plan.post_bytes
        )
        .into_bytes();
        post.resize(post.len() + plan.post_bytes, b'p');
        Self {
            get: Request { bytes: get, expected: reply::length(plan.path.as_bytes()) },
            post: Request { bytes: post, expected: reply::SMALL },
            post_percent: plan.post_percent,
            due: 0,
        }
    }

    /// Returns the method of the next request; POSTs are spread evenly.
    pub fn next_method(&mut self) -> Method {
        self.due += self.post_percent;
        if self.due < 100 {
            return Method::Get;
        }
        self.due -= 100;
        Method::Post
    }

    pub fn of_method(&self, method: Method) -> &Request {
        match method {
            Method::Get => &self.get,
            Method::Post => &self.post,
        }
    }
}

impl Request {
    pub fn check(&self, status: u16, content: u64) -> Result<(), Failure> {
        if status != 200 {
            return Err(Failure::Status(status));
        }
        if content == self.expected { Ok(()) } else { Err(Failure::Length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn posts_are_spread_evenly() {
        let plan =
            Plan { post_percent: 30, post_bytes: 7, ..Plan::new("127.0.0.1:1".parse().expect("valid")) };
        let mut requests = Requests::of(&plan);
        let posts = (0..100).filter(|_| requests.next_method() == Method::Post).count();
        assert_eq!(posts, 30);
        let post = requests.of_method(Method::Post);
        let head = wire::request(&post.bytes).expect("well-formed").expect("whole");
        assert_eq!(post.bytes.len() - head.length, 7);
        assert_eq!(head.body, wire::body::Body::Length(7));
    }

    #[test]
    fn an_answer_must_be_right_and_whole() {
        let plan = Plan { path: "/1m".to_owned(), ..Plan::new("127.0.0.1:1".parse().expect("valid")) };
        let requests = Requests::of(&plan);
        let get = requests.of_method(Method::Get);
        assert_eq!(get.check(200, 1 << 20), Ok(()));
        assert_eq!(get.check(200, 5), Err(Failure::Length));
        assert_eq!(get.check(502, 1 << 20), Err(Failure::Status(502)));
    }
}
