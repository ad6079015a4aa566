//! How an instance carries out its user data.

use crate::support::{Aws, SERVER, UserData, cloud, launched, profile};

#[tokio::test]
async fn a_service_gets_its_environment_and_directory() {
    let aws = Aws::new();
    let network = aws.network().await;
    let data = UserData::new().file("/srv/server", "0755", SERVER).file(
        "/etc/web/env",
        "0600",
        "# a comment\nBOTH=file\nFROM_FILE=\"x y\"\n",
    );
    let data = data.service(
        "Environment=BOTH=unit ONE=1\nEnvironment=\"TWO=a b\"\nEnvironmentFile=/etc/web/env\n\
         EnvironmentFile=-/etc/web/missing\nWorkingDirectory=/var/lib/web\nExecStart=/srv/server",
    );
    let instance = launched(aws.launch(&network).user_data(data.encode())).await;
    instance.answers().await;
    for (name, value) in [
        ("ONE", "1"),
        ("TWO", "a b"),
        ("FROM_FILE", "x y"),
        // As with systemd, a file overrides.
        ("BOTH", "file"),
        ("AWS_ENDPOINT_URL", &cloud().endpoint),
        // Nothing of the test's own environment.
        ("CARGO_MANIFEST_DIR", ""),
    ] {
        assert_eq!(instance.get(&format!("/env/{name}")).await.as_deref(), Ok(value), "{name}");
    }
    let directory = instance.get("/cwd").await.expect("it answers");
    assert_eq!(directory, instance.disk().join("var/lib/web").to_string_lossy());
}

/// As Vigia's instances do: the first start fails because the program is missing, a later one fetches it with
/// the credentials of the instance.
#[tokio::test]
async fn a_failed_start_is_tried_again() {
    let aws = Aws::new();
    let network = aws.network().await;
    let bucket = aws.bucket().await;
    aws.profile("fetcher").await;
    let fetch =
        "#!/bin/sh\nset -eu\naws s3 cp --only-show-errors \"s3://$BUCKET/server\" server\nchmod +x server\n";
    let data = UserData::new().file("/srv/fetch", "0755", fetch).service(&format!(
        "Environment=BUCKET={bucket}\nWorkingDirectory=/srv\nExecStartPre=+/srv/fetch\n\
         ExecStart=/srv/server\nRestart=always"
    ));
    let launch = aws.launch(&network).iam_instance_profile(profile("fetcher"));
    let instance = launched(launch.user_data(data.encode())).await;
    aws.shows(&instance.id, "web.service: did not start: /srv/fetch failed").await;
    aws.put(&bucket, "server", SERVER).await;
    instance.answers().await;
    aws.terminate(&instance.id).await;
}

#[tokio::test]
async fn the_console_shows_what_services_print() {
    let aws = Aws::new();
    let network = aws.network().await;
    let talk = "#!/bin/sh\necho to the one output\necho to the other >&2\nexit 7\n";
    let data = UserData::new().file("/bin/talk", "0755", talk).service("ExecStart=/bin/talk");
    let instance = launched(aws.launch(&network).user_data(data.encode())).await;
    aws.shows(&instance.id, "web.service: ended: exit status: 7").await;
    let console = aws.console(&instance.id).await;
    for line in ["booting", "cloud-init wrote /bin/talk", "to the one output", "to the other"] {
        assert!(console.contains(line), "no `{line}` in {console}");
    }
    // The unit does not ask for a restart, and the console is there after the end.
    aws.terminate(&instance.id).await;
    aws.shows(&instance.id, "powered off").await;
    assert_eq!(aws.console(&instance.id).await.matches("ended:").count(), 1);
}

#[tokio::test]
async fn a_console_is_cut_at_64_kib() {
    let aws = Aws::new();
    let network = aws.network().await;
    let talk = "#!/bin/sh\nseq 1 20000\necho the end\n";
    let data = UserData::new().file("/bin/talk", "0755", talk).service("ExecStart=/bin/talk");
    let instance = launched(aws.launch(&network).user_data(data.encode())).await;
    aws.shows(&instance.id, "web.service: ended: exit status: 0").await;
    let console = aws.console(&instance.id).await;
    assert_eq!(console.len(), 64 * 1024);
    assert!(console.contains("20000\nthe end\n"), "{console}");
}

#[tokio::test]
async fn a_boot_that_fails_leaves_an_instance_without_services() {
    let aws = Aws::new();
    let network = aws.network().await;
    for (data, says) in [
        ("#!/bin/sh\necho hello\n", "does not start with #cloud-config"),
        ("#cloud-config\nwrite_files: 7\n", "not valid cloud-config"),
        ("#cloud-config\nwrite_files:\n- path: /a/../../b\n", "leaves the instance's root directory"),
        ("#cloud-config\nruncmd:\n- systemctl enable --now nothing.service\n", "no unit nothing.service"),
    ] {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        let instance = launched(aws.launch(&network).user_data(data)).await;
        aws.shows(&instance.id, says).await;
        assert_eq!(aws.state(&instance.id).await, "running");
        aws.terminate(&instance.id).await;
        aws.shows(&instance.id, "powered off").await;
    }
}

#[tokio::test]
async fn commands_that_would_change_this_machine_are_left_out() {
    let aws = Aws::new();
    let network = aws.network().await;
    let marker = cloud().dir.join("made-by-user-data");
    let data = format!("#cloud-config\nruncmd:\n- [touch, {}]\n", marker.display());
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(data);
    let instance = launched(aws.launch(&network).user_data(data)).await;
    aws.shows(&instance.id, "the local cloud does not run: touch").await;
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_service_that_is_terminated_may_end_its_work() {
    let aws = Aws::new();
    let network = aws.network().await;
    let data = UserData::new()
        .file("/srv/server", "0755", SERVER)
        .file("/srv/finishes-late", "0644", "")
        .service("ExecStart=/srv/server\nWorkingDirectory=/srv\nRestart=always");
    let instance = launched(aws.launch(&network).user_data(data.encode())).await;
    let pid = instance.answers().await;
    aws.terminate(&instance.id).await;
    aws.shows(&instance.id, "asked to end").await;
    // Terminated for EC2, while its process still runs.
    assert_eq!(aws.state(&instance.id).await, "terminated");
    assert_eq!(instance.get("/pid").await, Ok(pid.to_string()));
    std::fs::write(instance.disk().join("srv/may-end"), "").expect("written");
    aws.shows(&instance.id, "ended its work").await;
    aws.shows(&instance.id, "powered off").await;
    instance.is_gone().await;
}

#[tokio::test]
async fn a_service_that_does_not_end_is_killed() {
    let aws = Aws::new();
    let network = aws.network().await;
    let data = UserData::new()
        .file("/srv/server", "0755", SERVER)
        .file("/srv/finishes-late", "0644", "")
        .service("ExecStart=/srv/server\nWorkingDirectory=/srv\nTimeoutStopSec=100ms");
    let instance = launched(aws.launch(&network).user_data(data.encode())).await;
    instance.answers().await;
    aws.terminate(&instance.id).await;
    aws.shows(&instance.id, "powered off").await;
    instance.is_gone().await;
    assert!(!aws.console(&instance.id).await.contains("ended its work"));
}
