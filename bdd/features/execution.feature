Feature: Execution
  Work runs over verified bytes only. Its shard stays while it runs, and its result counts only if it ends well.

  @VER-1 @VER-12 @AUD-1
  Scenario: Work reads the sealed bytes and none beyond them
    Given the shard llama is sealed
    When I read 100 bytes at 69900 of llama
    Then it read bytes 69900 to 70000 of llama
    And the trail has, in this order: seal_verified, execute_started, execute_finished
    When I read 100 bytes at 69901 of llama
    Then it fails with INVALID_PARAMS
    And the message contains "69901"
    And the manager is ready

  @VER-3
  Scenario: A shard is not released while it executes
    Given the shard llama is sealed
    When I begin an execution of llama
    And I release llama
    Then it fails with SHARD_BUSY
    And trying again may help
    And used VRAM is as before
    When the execution finishes
    And I release llama
    Then used VRAM is zero

  @VER-5
  Scenario: A result in flight is discarded when another shard fails
    Given the shard llama is sealed
    And the shard gemma is sealed
    When I begin an execution of gemma
    And bit 0 of byte 0 of llama flips in VRAM
    And I verify llama
    Then it is an integrity failure of llama that covers byte 0
    When the execution finishes
    Then it fails with MANAGER_STOPPED
    And the executions ended as: discarded

  @VER-12 @AUD-1 @VER-3
  Scenario: An execution that is dropped is over, and the trail says so
    Given the shard llama is sealed
    When I begin an execution of llama
    And the execution is dropped
    Then the executions ended as: abandoned
    When I release llama
    Then used VRAM is zero

  @VER-6 @VER-15 @VER-5
  Scenario: A result that is checked afterwards is discarded if the bytes changed meanwhile
    Given the shard llama is sealed
    When I begin an execution of llama that is checked afterwards
    And the execution finishes
    Then the executions ended as: finished
    When I begin an execution of llama that is checked afterwards
    And bit 3 of byte 40000 of llama flips in VRAM
    And the execution finishes
    Then it is an integrity failure of llama that covers byte 40000
    And the executions ended as: discarded
    And the manager has stopped for integrity

  @VER-6
  Scenario: Without a check afterwards only the next check finds the change
    Given the shard llama is sealed
    When I begin an execution of llama
    And bit 3 of byte 40000 of llama flips in VRAM
    And the execution finishes
    Then it succeeds
    When I execute llama
    Then it is an integrity failure of llama that covers byte 40000

  @VER-7 @VER-5
  Scenario Outline: When one of a batch has changed none begins and none stays in use
    Given a manager that quarantines only the shard
    And the shard llama is sealed
    And the shard gemma is sealed
    When I execute the batch llama, gemma
    Then the executions ended as: finished, finished
    When bit 3 of byte 69999 of <changed> flips in VRAM
    And I execute the batch llama, gemma
    Then it is an integrity failure of <changed> that covers byte 69999
    And the trail has 0 times execute_started
    When I release llama
    And I release gemma
    Then used VRAM is zero

    Examples:
      | changed |
      | llama   |
      | gemma   |
