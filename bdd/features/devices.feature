Feature: Devices
  The device is never in doubt. Each has its own manager, ledger and fate.

  @RES-8 @RES-5 @VER-5 @two-devices
  Scenario: Two devices keep their own ledgers, and a change on one does not stop the other
    Given a manager
    And a second manager on another device
    And the shard llama is sealed
    And the shard gemma is sealed on the second manager
    When bit 3 of byte 40000 of gemma flips in VRAM
    And I execute gemma on the second manager
    Then it is an integrity failure of gemma that covers byte 40000
    And the manager is ready
    When I execute llama
    Then the work read the weights of llama
    When I release llama
    Then used VRAM is zero

  @DEV-1 @mock
  Scenario: Production refuses the mock
    When I build a manager for production on the mock
    Then it fails with POLICY_VIOLATION
    And the message contains "real_device"
    And policy_violation is a critical event

  @DEV-1
  Scenario: The mock is never chosen by itself
    When I build a manager on the best device there is
    Then it is no mock
