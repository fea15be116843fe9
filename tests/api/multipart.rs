//! All files of a model in one `curl -F` call.

use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};

use crate::support::app::{TestApp, json_of, problem};
use crate::support::models::small;

fn file(name: &str, bytes: Vec<u8>) -> Part {
    Part::bytes(bytes).file_name(name.to_owned())
}

#[tokio::test]
async fn one_call_makes_a_ready_model() {
    let app = TestApp::start().await;
    let form = Form::new()
        .text("name", "tiny")
        .text("metadata", r#"{"team":"a"}"#)
        .part("file", file("model.safetensors", small()))
        .part("file", file("sub/notes.txt", b"hello".to_vec()));
    let response = app
        .request(Method::POST, "/v1/models")
        .multipart(form)
        .send()
        .await
        .expect("answers");
    let model = json_of(response, StatusCode::CREATED).await;
    assert_eq!(model["status"], "ready");
    assert_eq!(model["name"], "tiny");
    assert_eq!(model["metadata"]["team"], "a");
    assert_eq!(model["files"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_refused_form_leaves_nothing() {
    let app = TestApp::start().await;
    let forms: Vec<(Form, u16, Option<&str>)> = vec![
        (
            Form::new().part("file", file("readme.txt", b"hello".to_vec())),
            422,
            None,
        ),
        (
            Form::new()
                .part("file", file("model.safetensors", small()))
                .part("file", file("../x", vec![1])),
            422,
            Some("file_name_invalid"),
        ),
        (
            Form::new()
                .part("file", file("a.json", vec![1]))
                .part("file", file("a.json", vec![2])),
            422,
            Some("file_name_duplicate"),
        ),
        (
            Form::new().part("file", file("m.bin", vec![1])),
            422,
            Some("pickle_refused"),
        ),
        (Form::new().text("bogus", "x"), 422, Some("fields_invalid")),
        (Form::new().text("name", "x"), 422, Some("fields_invalid")),
        (
            Form::new()
                .text("metadata", "{")
                .part("file", file("a.json", vec![1])),
            400,
            Some("json_invalid"),
        ),
    ];
    for (form, status, code) in forms {
        let response = app
            .request(Method::POST, "/v1/models")
            .multipart(form)
            .send()
            .await
            .expect("answers");
        match code {
            Some(code) => {
                problem(response, status, code).await;
            }
            None => assert_eq!(response.status().as_u16(), status),
        }
    }
    let list = json_of(app.get("/v1/models").await, StatusCode::OK).await;
    assert_eq!(list["data"].as_array().map(Vec::len), Some(0));
    app.stop_and_expect_empty().await;
}

#[tokio::test]
async fn what_is_wrong_in_a_form_is_named() {
    let app = TestApp::start().await;
    let form = Form::new()
        .text("metadata", r#"{"team": 1}"#)
        .part("file", file("a.json", vec![1]));
    let request = app.request(Method::POST, "/v1/models").multipart(form);
    let refused = problem(request.send().await.expect("answers"), 422, "fields_invalid").await;
    assert_eq!(refused["errors"][0]["pointer"], "/metadata/team", "{refused}");

    let form = Form::new().part("file", file("up/../x", vec![1]));
    let request = app.request(Method::POST, "/v1/models").multipart(form);
    let refused = problem(request.send().await.expect("answers"), 422, "file_name_invalid").await;
    let detail = refused["detail"].as_str().expect("text");
    assert!(detail.contains("up/../x"), "which of many files: {detail}");

    let head =
        "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\0b\"\r\n\r\n{}\r\n--B--\r\n";
    let request = app
        .request(Method::POST, "/v1/models")
        .header("content-type", "multipart/form-data; boundary=B");
    let response = request.body(head).send().await.expect("answers");
    problem(response, 400, "bad_request").await;
    app.stop_and_expect_empty().await;
}

#[tokio::test]
async fn a_form_that_breaks_off_leaves_nothing() {
    let app = TestApp::start().await;
    let head = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.json\"\r\n\r\n{}\r\n\
                --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"b.json\"\r\n\r\n{\"half\"";
    let response = app
        .request(Method::POST, "/v1/models")
        .header("content-type", "multipart/form-data; boundary=B")
        .body(head)
        .send()
        .await
        .expect("answers");
    problem(response, 400, "body_truncated").await;
    let response = app
        .request(Method::POST, "/v1/models")
        .header("content-type", "multipart/form-data")
        .body("x");
    problem(response.send().await.expect("answers"), 400, "bad_request").await;
    app.stop_and_expect_empty().await;
}
