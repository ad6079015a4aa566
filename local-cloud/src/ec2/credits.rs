//! The credit options of instances. The emulator shows `standard` for each and has no call to change it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};

use super::Ec2;
use super::call::{Call, bad_request};
use crate::cpu::Credits;
use crate::machine::Machine;
use crate::reply::{refusal, xml};

const NOT_FOUND: &str = "InvalidInstanceID.NotFound";

struct Refused {
    code: &'static str,
    message: String,
}

impl Ec2 {
    /// Of the named instances; otherwise of all with the option `unlimited`.
    pub(super) async fn describe_credits(&self, call: &Call) -> Response<Body> {
        let named: Vec<&str> = call.numbered("InstanceId").chain(call.filter("instance-id")).collect();
        let machines = self.machines_of_region(call.region()).await;
        if let Some(unknown) = call.numbered("InstanceId").find(|id| !machines.contains_key(*id)) {
            return bad_request(NOT_FOUND, &no_instance(unknown));
        }
        let items: String = machines
            .values()
            .filter_map(|machine| {
                let credits = machine.cpu.credits();
                let is_asked_for = match named.is_empty() {
                    true => credits == Some(Credits::Unlimited),
                    false => named.contains(&machine.id.as_str()),
                };
                // "If you specify an instance ID that is not a burstable performance instance, Amazon EC2
                // returns the standard credit option."
                let name = credits.unwrap_or(Credits::Standard).name();
                is_asked_for.then(|| {
                    format!(
                        "<item><instanceId>{}</instanceId><cpuCredits>{name}</cpuCredits></item>",
                        machine.id
                    )
                })
            })
            .collect();
        xml(format!(
            "<DescribeInstanceCreditSpecificationsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>local-cloud</requestId><instanceCreditSpecificationSet>{items}\
             </instanceCreditSpecificationSet></DescribeInstanceCreditSpecificationsResponse>"
        ))
    }

    /// Changes each instance that can be changed, and reports the others.
    pub(super) async fn modify_credits(&self, call: &Call) -> Response<Body> {
        let mut changes = Vec::new();
        for number in 1_u32.. {
            let prefix = format!("InstanceCreditSpecification.{number}");
            let Some(id) = call.get(&format!("{prefix}.InstanceId")) else { break };
            let asked = call.get(&format!("{prefix}.CpuCredits")).unwrap_or("");
            let Some(credits) = Credits::parse(asked) else {
                let message =
                    format!("Invalid value '{asked}' for CpuCredits. Valid values: standard, unlimited.");
                return bad_request("InvalidParameterValue", &message);
            };
            changes.push((id, credits));
        }
        if changes.is_empty() {
            let message = "The request must contain the parameter InstanceCreditSpecification";
            return bad_request("MissingParameter", message);
        }
        if call.get("DryRun") == Some("true") {
            let message = "Request would have succeeded, but DryRun flag is set.";
            return refusal("ec2", StatusCode::PRECONDITION_FAILED, "DryRunOperation", message);
        }
        let machines = self.machines_of_region(call.region()).await;
        let (mut done, mut failed) = (String::new(), String::new());
        for (id, credits) in changes {
            match self.changeable(&machines, id).await {
                Ok(machine) => {
                    machine.cpu.set_credits(credits);
                    done.push_str(&format!("<item><instanceId>{id}</instanceId></item>"));
                }
                Err(Refused { code, message }) => failed.push_str(&format!(
                    "<item><instanceId>{id}</instanceId><error><code>{code}</code><message>{message}</message>\
                     </error></item>"
                )),
            }
        }
        xml(format!(
            "<ModifyInstanceCreditSpecificationResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>local-cloud</requestId>\
             <successfulInstanceCreditSpecificationSet>{done}</successfulInstanceCreditSpecificationSet>\
             <unsuccessfulInstanceCreditSpecificationSet>{failed}</unsuccessfulInstanceCreditSpecificationSet>\
             </ModifyInstanceCreditSpecificationResponse>"
        ))
    }

    async fn changeable<'a>(
        &self,
        machines: &'a BTreeMap<String, Arc<Machine>>,
        id: &str,
    ) -> Result<&'a Machine, Refused> {
        let Some(machine) = machines.get(id) else {
            return Err(Refused { code: NOT_FOUND, message: no_instance(id) });
        };
        if machine.cpu.credits().is_none() {
            let message =
                format!("The {} instance type does not support CPU credits.", machine.instance_type);
            return Err(Refused { code: "InstanceCreditSpecification.NotSupported", message });
        }
        if self.machine(id).await.is_none() {
            let message =
                "The instance must be running or stopped for its credit option to change.".to_owned();
            return Err(Refused { code: "IncorrectInstanceState", message });
        }
        Ok(machine)
    }

    /// Includes the terminated ones: EC2 knows them for a while.
    async fn machines_of_region(&self, region: &str) -> BTreeMap<String, Arc<Machine>> {
        let mut all = self.machines.lock().await.clone();
        all.extend(self.terminated.lock().await.clone());
        all.retain(|_, machine| machine.region == region);
        all
    }
}

fn no_instance(id: &str) -> String {
    // The requested id is quoted in XML.
    let id = quick_xml::escape::escape(id);
    format!("The instance ID '{id}' does not exist")
}
