Feature: Several devices
  Each device has its own manager, ledger and fate. What one sealed the other refuses.

  @RES-8 @RES-5
  Scenario: Two devices keep their own ledgers and serve their own shards
    Given a manager
    And a second manager on another device
    And weights llama of 70000 bytes
    And weights gemma of 30000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from gemma on the second manager
    When I execute part-0
    Then it read the weights llama
    When I execute part-1 on the second manager
    Then the work ran
    And it read the weights gemma
    When I release part-0
    Then used VRAM is zero
    When I release part-1 on the second manager
    Then it succeeds
    And used VRAM of the second manager is 0 bytes

  @RES-8 @SEAL-4
  Scenario: A seal of one device neither executes nor releases on the other
    Given a manager
    And a second manager on another device
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama on the second manager
    When I execute part-1
    Then the seal is refused as claims_other_device
    And the trail says refused as claims_other_device
    When I go on
    And I release part-1
    Then the seal is refused as claims_other_device
    And used VRAM is as before
    When I go on
    And I release part-0 on the second manager
    Then the seal is refused as claims_other_device
    And the manager is ready
    And the second manager is ready
    And part-0 still verifies

  @RES-8 @VER-5
  Scenario: A change on one device does not stop the other
    Given a manager
    And a second manager on another device
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama on the second manager
    When bit 3 of byte 40000 of part-1 flips in VRAM
    And I execute part-1 on the second manager
    Then it is an integrity failure of part-1 that covers byte 40000
    And the work did not run
    And the second manager has stopped for integrity
    And the manager is ready
    When I go on
    And I execute part-0
    Then the work ran

  @RES-8 @RES-6
  Scenario: A full device leaves the other its room
    Given a manager on a device of 100000 bytes with 20000 bytes of headroom
    And a second manager on another device
    And weights llama of 60000 bytes
    And the shard part-0 is sealed from llama
    When I seal part-1 from llama
    Then it fails with VRAM_OOM
    And nothing was sealed and nothing is left of it
    When I go on
    And I seal part-1 from llama on the second manager
    Then it succeeds
    When I seal part-2 from llama on the second manager
    Then it fails with VRAM_OOM

  @RES-8 @DEV-5
  Scenario: Each device answers for its own memory
    Given a manager
    And a second manager on another device
    And weights llama of 5000 bytes
    And the device will not confirm a switch of access
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama on the second manager
    Then the manager counts 0 write-protected shards
    And the second manager counts 1 write-protected shard

  @RES-8 @SCR-3
  Scenario: One device is shut down while the other serves
    Given a manager
    And a second manager on another device
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama on the second manager
    When I shut down within 1000 ms
    Then the shutdown was drained and left nothing
    When I execute part-0
    Then it fails with MANAGER_STOPPED
    And the work did not run
    When I go on
    And I execute part-1 on the second manager
    Then the work ran
    And the second manager is ready

  @RES-8 @RES-4
  Scenario: Two managers on one device share its room
    Given a manager on a device of 100000 bytes with 0 bytes of headroom
    And a second manager on the same device
    And weights llama of 60000 bytes
    And the shard part-0 is sealed from llama on the second manager
    When I seal part-1 from llama
    Then it fails with VRAM_OOM
    And nothing was sealed and nothing is left of it
    When I go on
    And I release part-0 on the second manager
    And I seal part-1 from llama
    Then it succeeds
