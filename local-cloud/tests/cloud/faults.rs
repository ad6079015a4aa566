//! Faults on purpose do what their names say, and no more.

use crate::support::{Aws, Instance, cloud, eventually, fault, launched, nothing_runs_in, web_server};

/// The state letter of a process: `T` is stopped.
fn process_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

async fn until_process_is(pid: u32, what: &str, is_so: impl Fn(Option<char>) -> bool) {
    eventually(&format!("process {pid} is {what}"), async || {
        let state = process_state(pid);
        if is_so(state) { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
}

/// Returns a web server that hangs, and its process.
async fn hung_server(aws: &Aws) -> (Instance, u32) {
    let instance = aws.web_server(&aws.network().await).await;
    let pid = instance.answers().await;
    fault("hang", &instance.id).await.expect("done");
    until_process_is(pid, "stopped", |state| state == Some('T')).await;
    (instance, pid)
}

#[tokio::test]
async fn a_crashed_service_comes_back() {
    let aws = Aws::new();
    let network = aws.network().await;
    let instance = aws.web_server(&network).await;
    let before = instance.answers().await;
    fault("crash", &instance.id).await.expect("done");
    eventually("another process answers", async || match instance.get("/pid").await {
        Ok(pid) if pid != before.to_string() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    aws.shows(&instance.id, "web.service: ended: signal: 9 (SIGKILL)").await;
    assert_eq!(aws.state(&instance.id).await, "running");
}

#[tokio::test]
async fn a_hung_service_goes_on_when_resumed() {
    let aws = Aws::new();
    let (instance, pid) = hung_server(&aws).await;
    fault("resume", &instance.id).await.expect("done");
    assert_eq!(instance.answers().await, pid);
}

#[tokio::test]
async fn a_hung_service_can_be_terminated() {
    let aws = Aws::new();
    let (instance, _) = hung_server(&aws).await;
    aws.terminate(&instance.id).await;
    aws.shows(&instance.id, "powered off").await;
    instance.is_gone().await;
    // After resuming it ended in order, as under systemd.
    aws.shows(&instance.id, "ended its work").await;
}

#[tokio::test]
async fn a_dead_host_stays_dead_while_ec2_says_running() {
    let aws = Aws::new();
    let network = aws.network().await;
    let instance = aws.web_server(&network).await;
    fault("kill-host", &instance.id).await.expect("done");
    // After this line no process of the instance runs that could start another.
    aws.shows(&instance.id, "powered off").await;
    instance.is_gone().await;
    let console = aws.console(&instance.id).await;
    assert!(!console.contains("asked to end"), "it was given time: {console}");
    assert_eq!(console.matches("web.service: started").count(), 1, "{console}");
    assert_eq!(aws.state(&instance.id).await, "running");
    for kind in ["crash", "hang", "resume", "kill-host"] {
        assert_eq!(fault(kind, &instance.id).await, Err("no live instance matches".to_owned()));
    }
    aws.terminate(&instance.id).await;
    assert_eq!(aws.state(&instance.id).await, "terminated");
}

/// The address of a dead host belongs to it until it is terminated.
#[tokio::test]
async fn the_token_of_a_dead_host_still_stands_for_it() {
    let aws = Aws::new();
    let network = aws.network().await;
    let request = || aws.launch(&network).client_token("dead host").user_data(web_server().encode());
    let instance = launched(request()).await;
    fault("kill-host", &instance.id).await.expect("done");
    aws.shows(&instance.id, "powered off").await;
    assert_eq!(launched(request()).await.id, instance.id);
}

#[tokio::test]
async fn an_instance_terminated_behind_our_back_is_asked_to_end() {
    let aws = Aws::new();
    let network = aws.network().await;
    let instance = aws.web_server(&network).await;
    fault("terminate", &instance.id).await.expect("done");
    assert_eq!(aws.state(&instance.id).await, "terminated");
    aws.shows(&instance.id, "ended its work").await;
    aws.shows(&instance.id, "powered off").await;
    nothing_runs_in(&instance.disk()).await;
    assert_eq!(fault("terminate", &instance.id).await, Err("no live instance matches".to_owned()));
}

#[tokio::test]
async fn status_lists_live_instances_with_their_tags() {
    let aws = Aws::new();
    let network = aws.network().await;
    let special = "a & b <c> \u{e9}";
    let launch = aws.launch(&network).tag_specifications(crate::support::name(special));
    let instance = launched(launch).await;
    let status = local_cloud::daemon::status(&cloud().endpoint).await.expect("it answers");
    assert_eq!(status.pid, std::process::id());
    let view = status.machines.iter().find(|view| view.id == instance.id).expect("it is listed");
    assert_eq!(view.address, instance.address);
    assert_eq!(view.tags.get("Name").map(String::as_str), Some(special));
    aws.terminate(&instance.id).await;
    let status = local_cloud::daemon::status(&cloud().endpoint).await.expect("it answers");
    assert!(status.machines.iter().all(|view| view.id != instance.id));
}
