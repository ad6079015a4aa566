//! The stack's identity in AWS, and the names and tags derived from it.

use fleet::StackName;
use fleet::stack::TAG_STACK;

/// The stack in its account and region; every name comes from here.
#[derive(Clone, Debug)]
pub struct Names {
    pub stack: StackName,
    pub account: String,
    pub region: String,
    /// `aws`, `aws-cn` or `aws-us-gov`: the second part of every ARN.
    pub partition: String,
}

impl Names {
    pub fn data_bucket(&self) -> String {
        self.stack.data_bucket(&self.account, &self.region)
    }

    pub fn control_bucket(&self) -> String {
        self.stack.control_bucket(&self.account, &self.region)
    }

    pub fn function_arn(&self) -> String {
        format!(
            "arn:{}:lambda:{}:{}:function:{}",
            self.partition,
            self.region,
            self.account,
            self.stack.function()
        )
    }

    pub fn role_arn(&self, role: &str) -> String {
        format!("arn:{}:iam::{}:role/{role}", self.partition, self.account)
    }

    pub fn rule_arn(&self) -> String {
        format!(
            "arn:{}:events:{}:{}:rule/{}",
            self.partition,
            self.region,
            self.account,
            self.stack.schedule_rule()
        )
    }

    /// Returns the host of the EC2 API, over IPv4 only.
    pub fn ec2_host(&self) -> String {
        format!("ec2.{}.{}", self.region, if self.is_china() { "amazonaws.com.cn" } else { "amazonaws.com" })
    }

    /// Returns the host of the EC2 API over IPv4 and IPv6, in a region that has it.
    pub fn ec2_dual_stack_host(&self) -> String {
        self.dual_stack_host("ec2")
    }

    fn dual_stack_host(&self, service: &str) -> String {
        let domain = if self.is_china() { "api.amazonwebservices.com.cn" } else { "api.aws" };
        format!("{service}.{}.{domain}", self.region)
    }

    /// Returns a similar name that AWS has never had. A resolver that answers for it invents addresses.
    pub fn impossible_host(&self) -> String {
        self.dual_stack_host("vigia-no-such-service")
    }

    fn is_china(&self) -> bool {
        self.partition == "aws-cn"
    }

    /// Returns the tags that every resource carries: its stack, and its name in a console.
    pub fn tags(&self, what: &str) -> [(String, String); 2] {
        [(TAG_STACK.to_owned(), self.stack.to_string()), ("Name".to_owned(), self.stack.resource(what))]
    }
}

#[cfg(test)]
impl Names {
    /// Returns the names of a stack in Ireland.
    pub(crate) fn example(stack: &str) -> Self {
        Self {
            stack: stack.parse().expect("valid"),
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            partition: "aws".to_owned(),
        }
    }
}
