//! Refusals in the shape that each AWS service uses, so that an SDK reads the code out of them.

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use quick_xml::escape::escape;

pub fn refusal(service: &str, status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let (xml_code, xml_message) = (escape(code), escape(message));
    let (content_type, body) = match service {
        "ec2" => (
            "text/xml",
            format!(
                "<Response><Errors><Error><Code>{xml_code}</Code><Message>{xml_message}</Message></Error>\
                 </Errors><RequestID>local-cloud</RequestID></Response>"
            ),
        ),
        "s3" => (
            "application/xml",
            format!("<Error><Code>{xml_code}</Code><Message>{xml_message}</Message></Error>"),
        ),
        "iam" | "sts" => {
            let whose = if status.is_server_error() { "Receiver" } else { "Sender" };
            (
                "text/xml",
                format!(
                    "<ErrorResponse><Error><Type>{whose}</Type><Code>{xml_code}</Code>\
                     <Message>{xml_message}</Message></Error></ErrorResponse>"
                ),
            )
        }
        _ => (
            "application/json",
            serde_json::json!({"__type": code, "code": code, "message": message, "Message": message})
                .to_string(),
        ),
    };
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header("x-amzn-errortype", code)
        .body(Body::from(body))
        .expect("a refusal is made of valid header values")
}

pub fn xml(body: String) -> Response<Body> {
    Response::builder()
        .header(header::CONTENT_TYPE, "text/xml;charset=UTF-8")
        .body(Body::from(body))
        .expect("a reply is made of valid header values")
}
