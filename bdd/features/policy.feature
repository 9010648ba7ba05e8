Feature: Policy
  Production demands; development says what it relaxes; neither is chosen by accident.

  @mock
  Scenario: Production refuses the mock
    When I build a manager for production on the mock
    Then it fails with POLICY_VIOLATION
    And the message contains "real_device"
    And policy_violation is a critical event

  Scenario: A policy can demand a stored secret
    When I build a manager whose policy wants a stored secret
    Then it fails with POLICY_VIOLATION
    And the message contains "stored_secret"

  @SEAL-9
  Scenario: A policy can demand an expected digest
    Given a manager whose policy requires expected digests
    And weights llama of 5000 bytes
    When I seal part-0 from llama
    Then it fails with POLICY_VIOLATION
    And the message contains "expected_digest"
    And nothing was sealed and nothing is left of it
    When I go on
    And I seal part-0 from llama expecting the digest of llama
    Then it succeeds

  @DEV-1
  Scenario: The mock is never chosen by itself
    When I build a manager on the best device there is
    Then it is no mock

  @ERR-2
  Scenario: A device that is not there is named
    When I build a manager on a device that is not there
    Then it fails with DEVICE_UNAVAILABLE
    And the message contains "device 9"

  @RES-2
  Scenario: The posture is looked at again on demand
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I ask for the posture
    Then it succeeds
    And the manager is ready

  @RES-2 @faults
  Scenario: A violation on demand stops the manager
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the device will say that memory is managed
    When I ask for the posture
    Then it fails with POLICY_VIOLATION
    And the manager has stopped for policy
    And policy_violation is a critical event
